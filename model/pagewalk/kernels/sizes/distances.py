"""LRU stack distances: how many other units were used since a unit was used last. One pass, all sizes.

Every use takes the next *slot* of time; a unit sits in the slot of its last use, and its depth in the LRU
stack is the number of occupied slots after its own (Bennett and Kruskal 1975, Olken 1981). Slots are bits of
words; above the words stands a tree of counts with 64 children a node, whose right siblings are summed by one
vector step: a distance costs log64(slots) of them. When the slots run out, the units move to the first ones.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru.vector import RUN, ones, sum_behind

NEVER = -1
"""Slot of a unit that was not used yet."""

SPARE = 2
"""Slots for each unit: with 2, every unit moves once in as many uses as there are units. Ours to choose."""

FEWEST_SLOTS = 1 << 14
ONE = np.uint64(1)


class Stack(NamedTuple):
    """The LRU stack of all units of a trace."""

    slot_of: NDArray[np.int32]
    """int32 (units,): slot of each unit's last use, or NEVER."""
    unit_in: NDArray[np.int32]
    """int32 (slots,): the unit that was used at each slot; it may have been used again since."""
    occupied: NDArray[np.uint64]
    """uint64 (words,): bit i of word w stands for slot 64 * w + i."""
    counts: NDArray[np.int32]
    """int32: bits set in each word, then in each 64 words, ... up to at most 64 nodes; each level is filled
    up to a multiple of 64."""
    begin: NDArray[np.int64]
    """int64 (levels,): where each level starts in `counts`."""
    now: NDArray[np.int64]
    """int64 (1,): the next slot."""


def make_stack(units: int) -> Stack:
    """An empty stack for that many units, below 2**30."""
    slots = -(-max(FEWEST_SLOTS, SPARE * units) // RUN) * RUN
    nodes = [slots // RUN]
    while nodes[-1] > RUN:
        nodes.append(-(-nodes[-1] // RUN))
    room = [-(-n // RUN) * RUN for n in nodes]
    return Stack(
        np.full(units, NEVER, np.int32),
        np.zeros(slots, np.int32),
        np.zeros(slots // RUN, np.uint64),
        np.zeros(sum(room), np.int32),
        np.cumsum([0, *room])[:-1],
        np.zeros(1, np.int64),
    )


@inline
def _mark(stack, slot, step):
    """Occupy (step 1) or leave (step -1) a slot."""
    node = slot >> 6
    stack.occupied[node] ^= ONE << np.uint64(slot & 63)
    for first in stack.begin:
        stack.counts[first + node] += step
        node >>= 6


@inline
def _depth(stack, slot):
    """Number of occupied slots after this one."""
    node = slot >> 6
    depth = ones(stack.occupied[node] >> np.uint64(slot & 63)) - 1
    for first in stack.begin:
        lane = node & 63
        depth += sum_behind(stack.counts, first + node - lane, lane)
        node >>= 6
    return depth


@inline
def _compact(stack):
    """Move the units to the first slots, in order."""
    stack.occupied[:] = 0
    stack.counts[:] = 0
    n = 0
    for slot in range(stack.now[0]):
        unit = stack.unit_in[slot]
        if stack.slot_of[unit] == slot:
            stack.slot_of[unit] = n
            stack.unit_in[n] = unit
            _mark(stack, n, 1)
            n += 1
    stack.now[0] = n


@jit
def stack_distances(page, unit_of_page, stack, depths):
    """Add the stack distances of a chunk to a histogram.

    Parameters
    ----------
    page : ndarray of uint32
        The records.
    unit_of_page : ndarray of int32, shape (pages,)
    stack : Stack
        Kept over calls.
    depths : ndarray of int64, shape (units + 1,)
        ``depths[d]`` counts the uses of units that d other units were used after; a fully associative LRU of
        d + 1 entries or more hits there. The last counts first uses.
    """
    last = np.int32(NEVER)
    repeats = 0
    for p in page:
        unit = unit_of_page[p]
        if unit == last:
            repeats += 1
            continue
        last = unit
        if stack.now[0] == len(stack.unit_in):
            _compact(stack)
        slot = np.int64(stack.slot_of[unit])
        if slot == NEVER:
            depths[len(depths) - 1] += 1
        else:
            depths[_depth(stack, slot)] += 1
            _mark(stack, slot, -1)
        slot = stack.now[0]
        stack.slot_of[unit] = slot
        stack.unit_in[slot] = unit
        _mark(stack, slot, 1)
        stack.now[0] = slot + 1
    depths[0] += repeats
