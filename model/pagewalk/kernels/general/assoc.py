"""Set-associative arrays of tags under any replacement policy: TLBs, paging-structure caches, data caches.

All arrays of one kind (all L1 TLBs of all CPUs, say) are one table of int64, a row for each set; a set has
its own number of ways and its own policy. Tags of LRU and FIFO sets are kept in order, newest first; the
other policies keep a tag in its way. Rules: docs/model.md, "Replacement".
"""

import numpy as np

from pagewalk.kernels._jit import inline

LRU, FIFO, RANDOM, TREE_PLRU, NRU, SRRIP, SKYLAKE = range(7)
POLICIES = ("lru", "fifo", "random", "tree-plru", "nru", "srrip", "mru+1%3-plru4")
"""Names of the policies, in the order of their numbers."""

EMPTY = -1
"""Tag of an empty way; and what `insert` returns when nothing had to go."""


WAYS, POLICY, STATE, NOTES, TAGS = range(5)
"""Columns of a table: the set's number of ways; index of its policy; random generator, count of used ways or
group last used; column of the first of its notes (tree nodes, used ways, ages); the first of its tags."""


def make(ways: np.ndarray, policy: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Empty sets: one row of a table of int64 for each.

    Parameters
    ----------
    ways, policy : ndarray of int64, shape (sets,)
    seed : ndarray of int64, shape (sets,)
        Number of the set within its own array; seeds the random policy.
    """
    width = int(ways.max(initial=1))
    notes = 1 << (width - 1).bit_length() if (policy >= TREE_PLRU).any() else 0
    table = np.zeros((len(ways), TAGS + width + notes), np.int64)
    table[:, WAYS], table[:, POLICY], table[:, NOTES] = ways, policy, TAGS + width
    table[:, STATE] = np.where(policy == RANDOM, (seed * 2654435761 + 12345) & 0x7FFFFFFF, 0)
    table[:, TAGS : TAGS + width] = EMPTY
    return table


@inline
def _tree_touch(table, s, nodes, way, ways):
    """Point every node on the way's path away from it; node n is noted in column `nodes` + n."""
    node, low, left = 1, 0, ways
    while left > 1:
        half = left >> 1
        upper = way >= low + half
        table[s, nodes + node] = not upper
        node = 2 * node + upper
        low += half * upper
        left = left - half if upper else half


@inline
def _tree_victim(table, s, nodes, ways):
    """Follow the nodes; 0 is the lower half, the smaller one of an odd number of ways."""
    node, low, left = 1, 0, ways
    while left > 1:
        half = left >> 1
        upper = table[s, nodes + node]
        node = 2 * node + upper
        low += half * upper
        left = left - half if upper else half
    return low


@inline
def _touch(table, s, way, filled):
    """Note a hit on, or a fill of, a way."""
    policy, ways, notes = table[s, POLICY], table[s, WAYS], table[s, NOTES]
    if policy == TREE_PLRU:
        _tree_touch(table, s, notes, way, ways)
    elif policy == NRU:
        if table[s, notes + way] == 0:
            table[s, notes + way] = 1
            table[s, STATE] += 1
            if table[s, STATE] == ways:
                for other in range(ways):
                    table[s, notes + other] = other == way
                table[s, STATE] = 1
    elif policy == SRRIP:
        table[s, notes + way] = 2 if filled else 0
    elif policy == SKYLAKE:
        table[s, STATE] = way >> 2
        _tree_touch(table, s, notes + (way & ~3), way & 3, 4)


@inline
def _victim(table, s):
    """The way whose tag goes next in a full set."""
    policy, ways, notes = table[s, POLICY], table[s, WAYS], table[s, NOTES]
    if policy == RANDOM:
        state = (table[s, STATE] * 1103515245 + 12345) & 0x7FFFFFFF
        table[s, STATE] = state
        return (state >> 16) % ways
    if policy == TREE_PLRU:
        return _tree_victim(table, s, notes, ways)
    if policy == NRU:
        way = 0
        while way < ways - 1 and table[s, notes + way] == 1:
            way += 1
        return way
    if policy == SRRIP:
        oldest = 0
        for way in range(1, ways):
            if table[s, notes + way] > table[s, notes + oldest]:
                oldest = way
        older = 3 - table[s, notes + oldest]
        for way in range(ways):
            table[s, notes + way] += older
        return oldest
    group = (table[s, STATE] + 1) % 3
    return 4 * group + _tree_victim(table, s, notes + 4 * group, 4)


@inline
def find(table, s, tag):
    """Whether the set holds the tag; a hit is noted."""
    end = TAGS + table[s, WAYS]
    for at in range(TAGS, end):
        if table[s, at] == tag:
            policy = table[s, POLICY]
            if policy == LRU:
                for i in range(at, TAGS, -1):
                    table[s, i] = table[s, i - 1]
                table[s, TAGS] = tag
            elif policy != FIFO:
                _touch(table, s, at - TAGS, False)
            return True
    return False


@inline
def insert(table, s, tag):
    """Put in a tag that is not there; return the tag that had to go, or EMPTY."""
    ways = table[s, WAYS]
    if table[s, POLICY] <= FIFO:
        gone = table[s, TAGS + ways - 1]
        for i in range(TAGS + ways - 1, TAGS, -1):
            table[s, i] = table[s, i - 1]
        table[s, TAGS] = tag
        return gone
    way = 0
    while way < ways and table[s, TAGS + way] != EMPTY:
        way += 1
    if way == ways:
        way = _victim(table, s)
    gone = table[s, TAGS + way]
    table[s, TAGS + way] = tag
    _touch(table, s, way, True)
    return gone


@inline
def remove(table, s, tag):
    """Take a tag out; whether it was there."""
    end = TAGS + table[s, WAYS]
    for at in range(TAGS, end):
        if table[s, at] == tag:
            if table[s, POLICY] <= FIFO:
                for i in range(at, end - 1):
                    table[s, i] = table[s, i + 1]
                table[s, end - 1] = EMPTY
            else:
                table[s, at] = EMPTY
                used = table[s, NOTES] + at - TAGS
                if table[s, POLICY] == NRU and table[s, used] == 1:
                    table[s, used] = 0
                    table[s, STATE] -= 1
            return True
    return False


@inline
def drop_marked(table, first_set, end_set, marked):
    """Take every tag out of a range of sets for which `marked[tag]` holds; return how many went."""
    gone = 0
    for s in range(first_set, end_set):
        at = TAGS
        while at < TAGS + table[s, WAYS]:
            tag = table[s, at]
            if tag != EMPTY and marked[tag]:
                remove(table, s, tag)
                gone += 1
                if table[s, POLICY] <= FIFO:
                    continue
            at += 1
    return gone
