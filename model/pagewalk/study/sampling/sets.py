"""Misses of second levels of many sizes from some of their sets, with how far they may be off.

Sets are sampled, not pages or accesses: what a set holds depends on nothing outside it, so that the sampled
ones are exact. Sets whose numbers agree modulo 64 are a class; for 64 sets and more, every class is whole.
"""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.study.curve import FirstLevel, read_by
from pagewalk.study.replays import Subject

SET_COUNTS = 5
"""64, 128, ... 1024 sets."""
METHOD = "sets sampled by class modulo 64, ratio to L1 misses; error: two standard errors, and unlike classes"
FEWEST = 4
"""Classes of a sample. Ours: fewer say little of how different they are."""


class SampledCurve(Struct, frozen=True, kw_only=True):
    """Misses of LRU second levels under one mapping, from a sample of sets.

    Attributes
    ----------
    mapping : str
    accesses : int
        Data accesses of the trace, all of which passed the first level.
    l1 : str
    l1_misses : int
        Exact.
    classes : int
        Of 64, in the sample.
    sets, ways : list of int
    second_level_misses : list of list of int
        Estimates, for each of `sets`, for each of `ways`.
    error : list of list of int
        How far each may be off: two standard errors, and what classes unlike the sampled ones may hide.
    """

    mapping: str
    accesses: int
    l1: str
    l1_misses: int
    classes: int
    sets: list[int]
    ways: list[int]
    second_level_misses: list[list[int]]
    error: list[list[int]]


class SampledCurves(Struct, frozen=True, kw_only=True):
    """The sampled curves of one trace, as JSON has them.

    Attributes
    ----------
    seed : int
        Of the choice of classes.
    method : str
        What `error` is, for people.
    """

    schema: str = "pagewalk.curve-sample/1"
    trace: str
    seed: int
    method: str = METHOD
    curves: list[SampledCurve]


def sampled_curves(
    subject: Subject,
    mappings: Sequence[str],
    machine: Machine,
    share: float,
    seed: int = 1,
    progress: Callable[[int], None] | None = None,
) -> SampledCurves:
    """Estimate the misses of second levels under some mappings, in one pass.

    Parameters
    ----------
    subject, mappings, machine, progress
        As of `pagewalk.study.curve.curves`.
    share : float
        Of sets, in the sample.
    seed : int

    Raises
    ------
    BadInput
        As of `pagewalk.study.curve.curves`; or no such share.
    """
    from pagewalk.kernels.sizes.set_stacks import CLASSES

    if not 0 < share <= 1:
        raise BadInput(f"--sample {share:g}", "no share of the sets", "give a number above 0, up to 1")
    count = max(FEWEST, round(share * CLASSES))
    classes = np.sort(np.random.default_rng(seed).permutation(CLASSES)[:count])
    measured = [_Sampled(FirstLevel(subject, mapping, machine), classes) for mapping in mappings]
    read_by(subject.trace, [each.feed for each in measured], progress)
    return SampledCurves(trace=subject.trace.name, seed=seed, curves=[each.curve() for each in measured])


class _Sampled:
    """What is known of one mapping so far."""

    def __init__(self, first: FirstLevel, classes: NDArray[np.int64]) -> None:
        from pagewalk.kernels.sizes.set_stacks import make_sampled_stacks

        self.first, self.classes = first, classes
        self.stacks = make_sampled_stacks(SET_COUNTS, classes)
        self.accesses = self.l1_misses = 0

    def feed(self, page: NDArray[np.uint32]) -> None:
        """Add data accesses, as indices into the trace's pages."""
        from pagewalk.kernels.sizes.set_stacks import sampled_set_counts

        first = self.first
        self.accesses += len(page)
        self.l1_misses += sampled_set_counts(page, first.place, first.rows, self.stacks, first.last)

    def curve(self) -> SampledCurve:
        """What the sample says."""
        from pagewalk.kernels.sizes.set_stacks import CLASSES, WAYS

        hits = np.cumsum(self.stacks.depths[:, :, :-1], axis=2)
        missed = self.stacks.seen[self.classes][:, None] - hits
        value, error = ratio_estimate(missed, self.stacks.seen, self.classes)
        return SampledCurve(
            mapping=self.first.mapping,
            accesses=self.accesses,
            l1=self.first.l1,
            l1_misses=int(self.l1_misses),
            classes=len(self.classes),
            sets=[CLASSES << c for c in range(SET_COUNTS)],
            ways=list(range(1, WAYS + 1)),
            second_level_misses=np.rint(value).astype(np.int64).tolist(),
            error=np.ceil(error).astype(np.int64).tolist(),
        )


def ratio_estimate(
    missed: NDArray[np.int64], seen: NDArray[np.int64], classes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate totals from some classes, by their ratio to what is known of all (Cochran, 6.3 and 6.9).

    Where a class outside the sample has more L1 misses than any inside, the sample says nothing of those that
    it has more: all that could miss of them, or hit, adds to the error.

    Parameters
    ----------
    missed : ndarray of int64, shape (..., classes in the sample, sizes)
    seen : ndarray of int64, shape (all classes,)
        Known of all classes, and near to proportional to what is asked for.
    classes : ndarray of int64, shape (classes in the sample,)

    Returns
    -------
    value, error : ndarray of float64, shape (..., sizes)
        Estimated totals, and how far they may be off.
    """
    known, count = seen[classes], len(classes)
    ratio = missed.sum(axis=-2) / max(int(known.sum()), 1)
    rest = missed - ratio[..., None, :] * known[:, None]
    spread = np.sqrt((rest**2).sum(axis=-2) / (count - 1) / count * (1 - count / len(seen)))
    weight = int(seen.sum()) / max(float(known.mean()), 1e-9)
    unlike = int(np.maximum(seen - known.max(initial=0), 0).sum())
    return ratio * int(seen.sum()), 2 * spread * weight + unlike * np.maximum(ratio, 1 - ratio)
