"""TLB geometry from timed chases: the sets, ways, index and replacement whose misses explain the time best.

Under a cyclic order and recency replacement a page misses if, and only if, more pages fall into its set than
it has ways; under random replacement a closed form gives the share (the reference's section 6.1, rules 3 and
4). So each candidate predicts, for each number of pages and stride, which accesses miss. What an access takes
over its data read is then h times the L1 misses plus w times the misses of both levels; least squares gives h
and w of each pair of candidates, and the pair with the least error is the answer.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]
"""Pages of a chase, and its stride in pages."""


class Geometry(NamedTuple):
    """A candidate TLB array.

    Attributes
    ----------
    sets, ways : int
    set_index : {"modulo", "xor"}
        Plain low page-number bits; those, exclusive-or the bits above them.
    policy : {"lru", "random"}
    """

    sets: int
    ways: int
    set_index: Literal["modulo", "xor"] = "modulo"
    policy: Literal["lru", "random"] = "lru"

    @property
    def entries(self) -> int:
        """Pages that it holds."""
        return self.sets * self.ways


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
PARTS = [
    Geometry(1 << bits, ways, index, policy)
    for bits in range(1, 10)
    for ways in (*range(1, 25), 32)
    for index in ("modulo", "xor")
    for policy in ("lru", "random")
]
FIRST = [g for g in FULL + PARTS if 8 <= g.entries <= 256 and g.policy == "lru" and g.set_index == "modulo"]
SECOND = [g for g in PARTS if 256 <= g.entries <= 8192]
"""Candidates of each level. Ours: beyond every processor of the presets, in both directions."""

NEARLY = 1.1
"""A geometry whose error is at most this times the least may as well be the right one. Ours."""


def miss_shares(geometries: Sequence[Geometry], shapes: Sequence[Shape]) -> NDArray[np.float64]:
    """Share of accesses that miss, once a chase is warm.

    Returns
    -------
    ndarray of float64, shape (geometries, shapes)
    """
    shares = np.empty((len(geometries), len(shapes)))
    for column, (pages, stride) in enumerate(shapes):
        crowds: dict[tuple[int, str], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        number = np.arange(pages, dtype=np.int64) * stride
        for row, g in enumerate(geometries):
            if (g.sets, g.set_index) not in crowds:
                hashed = number ^ (number >> (g.sets.bit_length() - 1)) if g.set_index == "xor" else number
                crowds[g.sets, g.set_index] = np.unique_counts(np.bincount(hashed & (g.sets - 1)))
            crowd, times = crowds[g.sets, g.set_index]
            each = [misses_of_a_set(int(pages_in), g.ways, g.policy) for pages_in in crowd]
            shares[row, column] = float(np.dot(each, times)) / pages
    return shares


@cache
def misses_of_a_set(pages: int, ways: int, policy: str) -> float:
    """Misses in a round over the pages that share a set."""
    if pages <= ways:
        return 0.0
    if policy == "lru":
        return float(pages)
    share, before = 1.0, 0.0
    while abs(share - before) > 1e-6:
        share, before = 1 - (1 - 1 / ways) ** ((pages - 1) * share), share
    return pages * share


def fit(shapes: Sequence[Shape], extra: NDArray[np.float64], total: NDArray[np.float64]) -> Fit:
    """Find the pair of geometries, and the two costs, that explain the times best.

    Parameters
    ----------
    shapes : sequence of (int, int)
    extra : ndarray of float64
        Cycles an access over its data read.
    total : ndarray of float64
        Cycles an access; errors count relative to it.
    """
    m1, m2 = miss_shares(FIRST, shapes), miss_shares(SECOND, shapes)
    h, w, left = _least_squares(m1, m2, extra, total)
    i, j = (int(place) for place in np.unravel_index(np.argmin(left), left.shape))
    explained = h[i, j] * m1[i] + w[i, j] * m1[i] * m2[j]
    return Fit(FIRST[i], SECOND[j], float(h[i, j]), float(w[i, j]), explained, float(left[i, j]))


def near(
    level: int,
    found: Fit,
    shapes: Sequence[Shape],
    extra: NDArray[np.float64],
    total: NDArray[np.float64],
) -> list[Geometry]:
    """Geometries of a level that explain the times nearly as well as the best, the other level's as found."""
    first, second = (FIRST, [found.second]) if level == 1 else ([found.first], SECOND)
    left = _least_squares(miss_shares(first, shapes), miss_shares(second, shapes), extra, total)[2].ravel()
    tried = first if level == 1 else second
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
