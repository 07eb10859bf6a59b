"""What the windows of a sample say of the whole trace, and how sure that is.

Accesses are told apart by how long ago their page was accessed before: whether a TLB still holds it depends
on that more than on anything else, and how many accesses of each such stratum the whole trace has is known,
for it was read. So the windows only have to tell what share of each stratum misses (post-stratification:
Cochran, Sampling Techniques, 3rd edition, section 5A.9).
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import has_itlb, replay
from pagewalk.replay.tables import LevelTable, translate
from pagewalk.study.sampling.windows import PARTS, Sample, Stretches, is_lru
from pagewalk.trace.trace import FETCH

CONFIDENCE = 0.95
_NORMAL = 1.959963984540054
"""The normal distribution's quantile for it."""


class Estimate(Struct, frozen=True, kw_only=True):
    """A count of the whole trace, estimated.

    Attributes
    ----------
    value, low, high : int
        The estimate, and the ends of its 95 % confidence interval.
    certain : int
        What of it is known exactly: first touches.
    """

    value: int
    low: int
    high: int
    certain: int = 0


class Estimates(Struct, frozen=True, kw_only=True):
    """What a sample says of a replay of the whole trace.

    Attributes
    ----------
    machine, mapping : str
    records : int
        Of the whole trace.
    share : float
        Of them in the sample.
    parts : int
        Windows.
    l1_misses, stlb_misses : Estimate
        Of data and, where the replay had them, fetches.
    """

    machine: str
    mapping: str
    records: int
    share: float
    parts: int
    l1_misses: Estimate
    stlb_misses: Estimate


def estimates(taken: Sample, mapping: Mapping, machine: Machine) -> Estimates:
    """Replay a sample, and say what that means for the whole trace.

    First touches miss for certain, and all of them are known; they stand aside. Of the other misses the
    interval is Student's, of the windows' deviations from what their strata let expect, plus what the windows
    cannot tell of strata that they hold little of (see `interval`). Where a TLB is not LRU, no warm-up leaves
    it just as the past would have: there it also has room for as much as the estimate has moved since.

    Parameters
    ----------
    taken : Sample
    mapping : Mapping
        Of the trace's pages.
    machine : Machine
    """
    missed: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = [], []

    def keep(l1: NDArray[np.int64], stlb: NDArray[np.int64]) -> None:
        missed[0].append(l1.copy())
        missed[1].append(stlb.copy())

    found = replay(taken.trace, mapping, machine, on_misses=keep)
    fetches = has_itlb(machine)
    tables = translate(mapping, machine, taken.trace.spaces, mapping.page)
    at_l1, at_stlb = (
        _first_touches(taken, tables.unit_of_page, level, fetches) for level in (tables.first, tables.second)
    )
    at_stlb = np.intersect1d(at_l1, at_stlb)  # an L1 entry that covers more may have spared the STLB
    replayed = _replayed(taken, fetches)
    l1, stlb = (
        _estimate(taken, machine, replayed[np.concatenate(at)], certain, fetches)
        for at, certain in zip(missed, (at_l1, at_stlb), strict=True)
    )
    return Estimates(
        machine=found.machine,
        mapping=found.mapping,
        records=taken.records,
        share=taken.share,
        parts=PARTS,
        l1_misses=l1,
        stlb_misses=stlb,
    )


def _replayed(taken: Sample, fetches: bool) -> NDArray[np.int64]:
    """Where in the sample each replayed access is."""
    if fetches:
        return np.arange(taken.trace.accesses)
    flags = [
        np.zeros(0, np.uint8),
        *(chunk.flags for chunk in taken.trace.chunks("flags") if chunk.flags is not None),
    ]
    return np.flatnonzero(np.concatenate(flags) & FETCH == 0)


def _first_touches(
    taken: Sample, unit_of_page: NDArray[np.int32], level: LevelTable, fetched: bool
) -> NDArray[np.int64]:
    """Where in the trace something is accessed that no entry of a TLB level could hold yet."""
    from pagewalk.kernels.trace.recency import NEVER

    found = []
    for cpu in taken.first:
        key, when = [], []
        for kind, row in ((0, 0), (1, 2)) if fetched else ((0, 0),):
            seen = np.flatnonzero(cpu[kind] != NEVER)
            unit = unit_of_page[seen]
            served = level.set_of[row][unit] >= 0
            place = level.set_of[row][unit].astype(np.int64) << 32 | level.tag_of[row][unit]
            key.append(place[served])
            when.append(cpu[kind][seen[served]])
        keys, times = np.concatenate(key), np.concatenate(when)
        order = np.lexsort((times, keys))
        keys, times = keys[order], times[order]
        found.append(times[np.append(True, keys[1:] != keys[:-1])[: len(keys)]])
    return np.sort(np.concatenate(found))


def _estimate(
    taken: Sample, machine: Machine, missed: NDArray[np.int64], certain: NDArray[np.int64], fetches: bool
) -> Estimate:
    """A count of the whole trace, of which what lies at the `certain` positions is known.

    `missed` are the positions in the sample of the accesses that missed there.
    """
    from pagewalk.kernels.trace.recency import FETCHED, FIRST

    whole = taken.whole.copy()
    of_data = int(np.isin(certain, taken.first[:, 0]).sum())
    whole[FIRST] -= of_data
    whole[FIRST + FETCHED] -= len(certain) - of_data
    used = slice(None) if fetches else slice(0, FETCHED)

    def of(stretches: Stretches) -> tuple[float, float, float]:
        misses, seen = (each[:, used] for each in _by_stratum(stretches, missed, certain))
        return interval(misses, seen, whole[used])

    value, low, high = of(taken.windows)
    if not is_lru(machine):
        moved = abs(value - of(taken.early)[0])
        low, high = max(low - moved, 0), min(high + moved, float(whole[used].sum()))
    known = len(certain)
    return Estimate(
        value=known + round(value), low=known + round(low), high=known + round(high), certain=known
    )


def _by_stratum(
    stretches: Stretches, missed: NDArray[np.int64], certain: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Misses and accesses of each stretch and stratum, without what is certain; shape (PARTS, STRATA)."""
    from pagewalk.kernels.trace.recency import STRATA

    length = stretches.stratum.shape[1]

    def counted(window: NDArray[np.int64], inside: NDArray[np.int64]) -> NDArray[np.int64]:
        number = window * STRATA + stretches.stratum[window, inside]
        return np.bincount(number, minlength=PARTS * STRATA).reshape(PARTS, STRATA)

    def within(at: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.int64]:
        window = np.searchsorted(start, at, "right") - 1
        inside = at - start[np.maximum(window, 0)]
        here = (window >= 0) & (inside < length)
        return counted(window[here], inside[here])

    sure = within(certain, stretches.start)
    seen = counted(*np.divmod(np.arange(PARTS * length), length)) - sure
    return np.maximum(within(missed, stretches.at) - sure, 0), seen


def interval(
    misses: NDArray[np.int64], seen: NDArray[np.int64], whole: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Estimate of a total, and its confidence interval.

    A stratum that no window has is taken to miss as often as the one before. Three things widen the interval.
    The windows' deviations from what their strata let expect, by Student's distribution. Never less than what
    so few accesses of a stratum leave open (Agresti and Coull 1998); where few of the windows have them, they
    count for less. And accesses of which there are more than the windows let expect: these were somewhere
    else, and all of them may miss, or none.

    Parameters
    ----------
    misses, seen : ndarray of int64, shape (windows, strata)
        Accesses in each window that missed, and all.
    whole : ndarray of int64, shape (strata,)
        Accesses of the whole.

    Returns
    -------
    value, low, high : float
    """
    parts, share = len(seen), seen.sum() / max(whole.sum(), 1)
    student = _student(parts - 1)
    present = seen.sum(axis=0)
    known = np.maximum.accumulate(np.where(present, np.arange(len(present)), 0))
    rate = (misses.sum(axis=0) / np.maximum(present, 1))[known]
    weight = whole / np.maximum(present, 1) * (present > 0)

    apart = (misses - rate * seen) @ weight
    between = float((apart**2).sum()) * parts / (parts - 1) * (1 - share)
    windows = present**2 / np.maximum((seen**2).sum(axis=0), 1)
    size = present * windows / parts
    likely = (rate * size + 2) / (size + 4)
    few = float((((weight * present) ** 2) * likely * (1 - likely) / (size + 4)).sum()) * (1 - share)
    reach = max(student * between**0.5, _NORMAL * few**0.5)

    let_expect = present / max(share, 1e-12) + student * seen.std(axis=0, ddof=1) * parts**0.5 / max(
        share, 1e-12
    )
    elsewhere = np.maximum(whole - let_expect, 0)
    value = float(rate @ whole)
    low = value - reach - float(elsewhere @ rate)
    high = value + reach + float(elsewhere @ (1 - rate))
    return value, max(low, 0.0), min(high, float(whole.sum()))


def _student(freedom: int) -> float:
    """The quantile of Student's distribution for `CONFIDENCE` (Abramowitz and Stegun 26.7.5)."""
    z = _NORMAL
    return float(z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2))
