"""Second levels side by side in vector lanes of the processor: a pass, from `pagewalk.kernels.sizes`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.index import set_index
from pagewalk.replay.tables import PscTable

KEY_BITS = (4, 8, 16, 32)
"""Of an entry among those of its set of a walk cache; kernels are compiled for each when it first occurs."""

MOST_TABLES = 64
"""Of a pass. Ours to choose."""

MOST_BYTES = 1 << 28
"""That the numbers of units may take in a pass whose tables need numbers of their own. Ours to choose."""


def most_tables(number: NDArray[np.int64]) -> int:
    """Tables that a pass may have; `number` as of `Lanes`."""
    return MOST_TABLES if _serve_all(number) else max(1, min(MOST_TABLES, MOST_BYTES // number.nbytes))


def _serve_all(number: NDArray[np.int64]) -> bool:
    """Whether page numbers, less the lowest, can be the units' numbers in all tables placed by "modulo"."""
    from pagewalk.kernels.sizes.depths import LARGEST

    order = np.sort(number)
    return len(order) > 0 and bool((order[1:] != order[:-1]).all()) and int(order[-1] - order[0]) <= LARGEST


class Lanes:
    """A pass of second levels that share a first level and have the same walk caches.

    Parameters
    ----------
    number : ndarray of int64, shape (units,)
        Page number of each unit's entry.
    placements : sequence of (str, int)
        Index function and number of sets of each table.
    kind_of : ndarray of int, shape (units,)
        What walks are counted by.
    psc : PscTable
    """

    def __init__(
        self,
        number: NDArray[np.int64],
        placements: Sequence[tuple[str, int]],
        kind_of: NDArray[np.integer],
        psc: PscTable,
    ) -> None:
        from pagewalk.kernels.sizes.depths import LOT, OWN, make_table, number_in_sets
        from pagewalk.kernels.sizes.planes import TABLES

        shared = number - number.min() if _serve_all(number) else None
        self.tables = []
        for index, sets in placements:
            if index == "modulo" and shared is not None and shared.max() // sets < OWN:
                numbers, divisor = shared, sets
            else:
                numbers, divisor = number_in_sets(set_index(index, number, sets), sets), OWN
            self.tables.append((numbers, make_table(sets, divisor, int(numbers.max(initial=0)))))
        groups = -(-len(placements) // TABLES)
        self.number = np.empty(LOT + 1, np.int64)
        self.depth = np.zeros((groups * TABLES, LOT), np.uint8)
        self.paths, self.walks, self.bits = _walks(kind_of, psc, groups)

    def send(self, unit: NDArray[np.int32]) -> None:
        """Send misses of the first level through."""
        from pagewalk.kernels.sizes.depths import LOT, depths, write_numbers
        from pagewalk.kernels.sizes.walks import walk

        for first in range(0, len(unit), LOT):
            lot = unit[first : first + LOT]
            written = None
            for table, (numbers, rows) in enumerate(self.tables):
                if numbers is not written:
                    write_numbers(numbers, lot, self.number)
                    written = numbers
                depths(rows, self.number, self.depth[table])
            walk(lot, self.depth, self.paths, self.walks, self.bits)

    def counted(self) -> NDArray[np.int64]:
        """Walks that found nothing in the caches, none of them to all, from the lowest.

        Returns
        -------
        ndarray of int64, shape (caches + 1, kinds, tables, 32)
            Of second levels of 1, 2, ... 32 ways.
        """
        left: NDArray[np.int64] = self.walks.left[:, :, : len(self.tables)]
        return left


def _walks(kind_of: NDArray[np.integer], psc: PscTable, groups: int) -> tuple[Any, Any, tuple[int, ...]]:
    """Empty walk caches of so many groups of tables, what walks ask them for, and the bits of a key."""
    from pagewalk.kernels.sizes.walks import Paths, make_walks

    caches = len(psc.level)
    kinds = int(kind_of.max(initial=0)) + 1
    # units with one entry in the lowest cache have one entry in every other
    lowest = psc.tag_of[0].astype(np.int64) if caches else np.zeros(len(kind_of), np.int64)
    of_unit, one = _dense(lowest * kinds + kind_of)
    first, set_of, tag = psc.first[one], psc.set_of[:, one], psc.tag_of[:, one]
    key = np.zeros(tag.shape, np.int64)
    crowded, row = np.zeros(tag.shape, bool), np.full(tag.shape, -1)
    for cache in range(caches):
        key[cache] = number_in_set(set_of[cache], tag[cache])
        most = np.zeros(len(psc.ways), np.int64)
        np.maximum.at(most, set_of[cache], key[cache] + 1)
        crowded[cache] = (most > psc.ways)[set_of[cache]]
    largest = int(key[crowded].max(initial=0))
    bits = next(count for count in KEY_BITS if largest < 1 << count)
    planes = np.zeros(len(psc.ways), np.int64)
    planes[set_of[crowded]] = bits * psc.ways[set_of[crowded]]
    row[crowded] = (np.cumsum(planes) - planes)[set_of[crowded]]
    asks, goes_on = np.ones(len(one), np.uint16), np.ones(len(one), bool)
    for cache in range(caches):
        goes_on &= (first > cache) | crowded[cache]
        asks[goes_on & (first <= cache)] |= 2 << cache
    tags = int(psc.tag_of.max(initial=-1)) + 1
    paths = Paths(
        of_unit.astype(np.int32),
        kind_of[one].astype(np.int8),
        first,
        np.where(crowded, tags + set_of, tag),
        row,
        (-(key[:, :, None] >> np.arange(bits) & 1)).astype(np.uint32),
        asks,
    )
    ways = np.array([psc.ways[sets.max(initial=0)] for sets in psc.set_of], np.int64)
    marks = tags + len(psc.ways)
    return paths, make_walks(ways, groups, kinds, len(one), marks, int(planes.sum())), tuple(range(bits))


def _dense(value: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number values in their order; and where each of them stands."""
    where = np.full(int(value.max(initial=-1)) + 1, -1)
    where[value] = np.arange(len(value))
    occurs = where >= 0
    return (np.cumsum(occurs) - 1)[value], where[occurs]


def number_in_set(set_of: NDArray[np.int32], tag_of: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number the distinct entries of each set from 0."""
    tags, index, inverse = np.unique(tag_of, return_index=True, return_inverse=True)
    sets = set_of[index]
    order = np.argsort(sets, kind="stable")
    begin = np.searchsorted(sets[order], sets[order])
    number = np.empty(len(tags), np.int64)
    number[order] = np.arange(len(tags)) - begin
    return number[inverse]
