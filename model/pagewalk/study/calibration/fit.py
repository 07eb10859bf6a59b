"""TLB geometry from timed chases: the sets, ways, index and replacement whose misses explain the time best.

Each candidate predicts, for each number of pages and stride, which share of the accesses misses
(`pagewalk.study.calibration.geometry`). What an access takes over its data read is then h times the L1 misses
plus w times the misses of both levels; least squares gives h and w of each pair of candidates, and the pair
with the least error is the answer.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.study.calibration.geometry import Geometry, Shape, miss_shares


class Fit(NamedTuple):
    """What explains the times best.

    Attributes
    ----------
    first, second : Geometry
    hit_cycles, walk_cycles : float
        Added by an L1 miss, and by a miss of the second level on top of it.
    explained : ndarray of float64
        Cycles over the data read that the fit gives for each chase.
    error : float
        Root mean square of the errors, relative to the times.
    """

    first: Geometry
    second: Geometry
    hit_cycles: float
    walk_cycles: float
    explained: NDArray[np.float64]
    error: float


FULL = [Geometry(1, entries) for entries in (*range(16, 132, 4), 160, 192)]
INDICES: tuple[Literal["modulo", "xor", "split"], ...] = ("modulo", "xor", "split")
POLICIES: tuple[Literal["lru", "tree-plru", "random"], ...] = ("lru", "tree-plru", "random")
PARTS = [
    Geometry(1 << bits, ways, index, policy)
    for bits in range(1, 10)
    for ways in (*range(1, 25), 32)
    for index in INDICES
    for policy in POLICIES
    if (index != "split" or bits > 1) and (policy != "tree-plru" or ways & (ways - 1))
]
FIRST = [g for g in FULL + PARTS if 8 <= g.entries <= 256 and g.policy == "lru" and g.set_index == "modulo"]
SECOND = [g for g in PARTS if 256 <= g.entries <= 8192]
"""Candidates of each level. Ours: beyond every processor of the presets, in both directions. A tree whose
ways are a power of two is left out: under a cyclic order it misses as true LRU does."""

NEARLY = 1.1
"""A geometry whose error is at most this times the least may as well be the right one. Ours."""


class Candidates(NamedTuple):
    """Arrays of both levels, and the share of each chase's accesses that miss in each.

    Attributes
    ----------
    first, second : list of Geometry
    first_missed, second_missed : ndarray of float64, shape (arrays, chases)
    """

    first: list[Geometry]
    second: list[Geometry]
    first_missed: NDArray[np.float64]
    second_missed: NDArray[np.float64]


def candidates(shapes: Sequence[Shape], shared_entries: int = 0) -> Candidates:
    """All candidates.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Of the chases.
    shared_entries : int
        Entries that the second level is documented to have, if the host's PDEs may lie among them; else 0.
        Sharing makes a level look smaller, so no other size is tried with it.
    """
    shared = [g._replace(shared=True) for g in SECOND if g.entries == shared_entries and g.policy != "random"]
    second = SECOND + shared
    return Candidates(FIRST, second, miss_shares(FIRST, shapes), miss_shares(second, shapes))


def fit(known: Candidates, extra: NDArray[np.float64], total: NDArray[np.float64]) -> Fit:
    """Find the pair of geometries, and the two costs, that explain the times best.

    Parameters
    ----------
    known : Candidates
    extra : ndarray of float64, shape (chases,)
        Cycles an access over its data read.
    total : ndarray of float64, shape (chases,)
        Cycles an access; errors count relative to it.
    """
    m1, m2 = known.first_missed, known.second_missed
    h, w, left = _least_squares(m1, m2, extra, total)
    i, j = (int(place) for place in np.unravel_index(np.argmin(left), left.shape))
    explained = h[i, j] * m1[i] + w[i, j] * m1[i] * m2[j]
    costs = float(h[i, j]), float(w[i, j])
    return Fit(known.first[i], known.second[j], *costs, explained, float(left[i, j]))


def near(
    level: int, found: Fit, known: Candidates, extra: NDArray[np.float64], total: NDArray[np.float64]
) -> list[Geometry]:
    """Geometries of a level that explain the times nearly as well as the best, the other level's as found."""
    m1, m2 = known.first_missed, known.second_missed
    if level == 1:
        tried, m2 = known.first, m2[[known.second.index(found.second)]]
    else:
        tried, m1 = known.second, m1[[known.first.index(found.first)]]
    left = _least_squares(m1, m2, extra, total)[2].ravel()
    return [g for g, error in zip(tried, left, strict=True) if error <= NEARLY * found.error]


def _least_squares(
    m1: NDArray[np.float64], m2: NDArray[np.float64], extra: NDArray[np.float64], total: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Give h, w and the relative error left, of every pair of rows of `m1` and `m2`."""
    square, wanted = 1 / total**2, extra / total
    a11 = (m1**2 @ square)[:, None]
    a12, a22 = (m1**2 * square) @ m2.T, (m1**2 * square) @ (m2**2).T
    b1, b2 = (m1 @ (extra * square))[:, None], (m1 * extra * square) @ m2.T
    determinant = a11 * a22 - a12**2
    with np.errstate(divide="ignore", invalid="ignore"):
        h = (a22 * b1 - a12 * b2) / determinant
        w = (a11 * b2 - a12 * b1) / determinant
        left = (wanted @ wanted - h * b1 - w * b2) / len(wanted)
    impossible = ~np.isfinite(left) | (determinant <= 1e-9 * a11 * a22) | (h <= 0) | (w <= 0)
    return h, w, np.where(impossible, np.inf, np.sqrt(np.maximum(left, 0.0)))
