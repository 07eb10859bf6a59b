"""Numbers for translation units from which the entries of both TLB levels follow by a shift.

The levels need not agree on what an entry covers: one may merge neighbours, or hold only pages smaller than
the leaf, in the array of one kind of access and not in that of another.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.replay.tables import LevelTable

Numbers = NDArray[np.int64]


class Names(NamedTuple):
    """The number of a unit is its block, so many free numbers apart as ``1 << max(shift)``, plus its rank.

    Attributes
    ----------
    block, rank : ndarray of int64, shape (kinds * units,)
        For each kind of access and unit; blocks are dense.
    shift : (int, int)
        The number >> the level's shift tells its entry from the others of the same set.
    """

    block: Numbers
    rank: Numbers
    shift: tuple[int, int]


def name_units(first: LevelTable, second: LevelTable, kinds: int) -> Names | None:
    """Name the units for two levels; None where neither level's entries are parts of the other's.

    Tags are ranges of addresses, the same at both levels. Where the second level serves a unit not at all,
    what it would be called there does not matter.
    """
    tag = [level.tag_of[:kinds].ravel().astype(np.int64) for level in (first, second)]
    row = [level.set_of[:kinds].ravel().astype(np.int64) + 1 for level in (first, second)]
    tag[1] = np.where(tag[1] < 0, tag[0], tag[1])
    span = 1 + int(max(of.max(initial=0) for of in tag))
    if (tag[0] == tag[1]).all() or _agree(row[0] * span + tag[0], row[0] * span + tag[1]):
        return Names(_dense(tag[1], span), np.zeros_like(tag[1]), (0, 0))
    for outer in (1, 0):
        block = _dense(tag[outer], span)
        entry = np.unique(row[1 - outer] * span + tag[1 - outer], return_inverse=True)[1]
        if follows(block, entry):
            rank = _rank(block[first_of(entry)])[entry]
            shift = int(rank.max(initial=0)).bit_length()
            return Names(block, rank, (0, shift) if outer else (shift, 0))
    return None


def first_of(number: Numbers) -> Numbers:
    """Where each of dense numbers stands first."""
    first = np.zeros(int(number.max(initial=-1)) + 1, np.int64)
    first[number[::-1]] = np.arange(len(number))[::-1]
    return first


def follows(value: Numbers, number: Numbers) -> bool:
    """Whether equal numbers, which are dense, always have equal values beside them."""
    return bool((value[first_of(number)][number] == value).all())


def _agree(one: Numbers, other: Numbers) -> bool:
    """Whether two columns are equal in the same places, whatever the values."""
    numbers = [np.unique(column, return_inverse=True)[1] for column in (one, other)]
    return follows(numbers[0], numbers[1]) and follows(numbers[1], numbers[0])


def _dense(value: Numbers, span: int) -> Numbers:
    """Number values below `span`, in their order."""
    occurs = np.zeros(span, bool)
    occurs[value] = True
    return (np.cumsum(occurs) - 1)[value]


def _rank(block: Numbers) -> Numbers:
    """Position of each entry among those of its block."""
    order = np.argsort(block, kind="stable")
    begin = np.cumsum(np.bincount(block)) - np.bincount(block)
    rank = np.empty(len(block), np.int64)
    rank[order] = np.arange(len(block)) - begin[block[order]]
    return rank
