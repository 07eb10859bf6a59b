"""Second levels side by side in vector lanes of the processor: a pass, from `pagewalk.kernels.sizes`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.index import set_index
from pagewalk.replay.tables import PscTable

KEY_BITS = (4, 8, 16, 32)
"""Of an entry among those of its set of a walk cache; kernels are compiled for each when it first occurs."""

MOST_TABLES = 256
"""Of a pass. Ours to choose."""

MOST_BYTES = 1 << 28
"""That the numbers of units may take in a pass whose tables need numbers of their own. Ours to choose."""


Size = tuple[str, int, int]
"""Index function, sets and ways of a second level."""

Counts = dict[Size, NDArray[np.int64]]
"""For each second level, int64 (caches + 1, kinds): walks that found nothing in so many caches."""


def most_tables(number: NDArray[np.int64], placements: Sequence[tuple[str, int]]) -> int:
    """Tables that a pass may have, of these index functions and numbers of sets; `number` as of `Lanes`."""
    shared = _shared(number)
    if all(_serves(shared, *placement) for placement in placements):
        return MOST_TABLES
    return max(1, min(MOST_TABLES, MOST_BYTES // max(1, number.nbytes)))


def _shared(number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Page numbers, less the lowest, if they may be the units' numbers in many tables; else nothing."""
    from pagewalk.kernels.sizes.depths import LARGEST

    order = np.sort(number)
    distinct = bool((order[1:] != order[:-1]).all())
    return number - order[0] if len(order) and distinct and order[-1] - order[0] <= LARGEST else number[:0]


def _serves(shared: NDArray[np.int64], index: str, sets: int) -> bool:
    """Whether a unit's set is its number modulo the sets, and what is left of the number a short key."""
    from pagewalk.kernels.sizes.depths import OWN

    return index == "modulo" and len(shared) > 0 and int(shared.max()) // sets < OWN


class Lanes:
    """A pass of second levels that share a first level, each with all of some sets of walk caches.

    Parameters
    ----------
    number : ndarray of int64, shape (units,)
        Page number of each unit's entry.
    sizes : sequence of (str, int, int)
        Index function, sets and ways of each second level.
    kind_of : ndarray of int, shape (units,)
        What walks are counted by.
    behind : sequence of PscTable
    """

    def __init__(
        self,
        number: NDArray[np.int64],
        sizes: Sequence[Size],
        kind_of: NDArray[np.integer],
        behind: Sequence[PscTable],
    ) -> None:
        from pagewalk.kernels.sizes.depths import LOT, OWN, make_table, number_in_sets
        from pagewalk.kernels.sizes.planes import WORD, WORDS

        self.ways: dict[tuple[str, int], list[int]] = {}
        for index, sets, ways in sorted(set(sizes)):
            self.ways.setdefault((index, sets), []).append(ways)
        shared = _shared(number)
        self.tables = []
        for (index, sets), ways_of in self.ways.items():
            if _serves(shared, index, sets):
                numbers, divisor = shared, sets
            else:
                numbers, divisor = number_in_sets(set_index(index, number, sets), sets), OWN
            self.tables.append((numbers, make_table(sets, divisor, int(numbers.max(initial=0)), ways_of)))
        most = WORD >> _log2(max(map(len, self.ways.values())))
        self.blocks = min(most, 1 << _log2(-(-len(self.tables) // WORDS)))
        groups = -(-len(self.tables) // (self.blocks * WORDS))
        self.number = np.empty(LOT + 1, np.int64)
        self.missed = np.zeros((groups * self.blocks * WORDS, LOT), np.uint8)
        self.walks: list[tuple[Any, Any, tuple[int, ...]]] = []
        self.walks_of = []
        for psc in behind:
            made = _walks(kind_of, psc, groups)
            alike = (number for number, kept in enumerate(self.walks) if _same(kept, made))
            self.walks_of.append(next(alike, len(self.walks)))
            if self.walks_of[-1] == len(self.walks):
                self.walks.append(made)

    def send(self, unit: NDArray[np.int32]) -> None:
        """Send misses of the first level through."""
        from pagewalk.kernels.sizes.depths import LOT, misses, write_numbers
        from pagewalk.kernels.sizes.walks import walk

        for first in range(0, len(unit), LOT):
            lot = unit[first : first + LOT]
            written = None
            for number, (numbers, table) in enumerate(self.tables):
                if numbers is not written:
                    write_numbers(numbers, lot, self.number)
                    written = numbers
                misses(table, self.number, self.missed[number])
            for kept in self.walks:
                walk(lot, self.missed, *kept)

    def counted(self) -> list[Counts]:
        """What was counted with each set of walk caches."""
        from pagewalk.kernels.sizes.planes import WORD, WORDS

        found: list[Counts] = [{} for _ in self.walks]
        for table, (placement, ways_of) in enumerate(self.ways.items()):
            group, here = divmod(table, self.blocks * WORDS)
            block, word = divmod(here, WORDS)
            for lane, ways in enumerate(ways_of, block * WORD // self.blocks):
                for counts, (_, walks, _) in zip(found, self.walks, strict=True):
                    counts[*placement, ways] = walks.left[:, :, group, word, lane]
        return [found[number] for number in self.walks_of]


def _same(one: tuple[Any, Any, tuple[int, ...]], other: tuple[Any, Any, tuple[int, ...]]) -> bool:
    """Whether walks find the same in both: caches with room for all may differ."""
    (paths, walks, bits), (others, other_walks, other_bits) = one, other
    pairs = zip((*paths, walks.ways), (*others, other_walks.ways), strict=True)
    return bits == other_bits and all(np.array_equal(mine, its) for mine, its in pairs)


def _log2(number: int) -> int:
    """Of the power of two that is not smaller."""
    return (number - 1).bit_length()


def _walks(kind_of: NDArray[np.integer], psc: PscTable, groups: int) -> tuple[Any, Any, tuple[int, ...]]:
    """Empty walk caches of so many groups of lanes, behind what walks ask them for, and the bits of a key."""
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
    ways[~crowded.any(axis=1)] = 0
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
