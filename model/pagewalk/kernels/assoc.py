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


WAYS, POLICY, STATE, AGES, TAGS = range(5)
"""Columns of a table: the set's number of ways; index of its policy; tree bits, reference bits or random
generator; column of its first SRRIP age; the first of its tags, -1 where empty."""


def make(ways: np.ndarray, policy: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Empty sets: one row of a table of int64 for each.

    Parameters
    ----------
    ways, policy : ndarray of int64, shape (sets,)
    seed : ndarray of int64, shape (sets,)
        Number of the set within its own array; seeds the random policy.
    """
    width = int(ways.max(initial=1))
    ages = width if (policy == SRRIP).any() else 0
    table = np.zeros((len(ways), TAGS + width + ages), np.int64)
    table[:, WAYS], table[:, POLICY], table[:, AGES] = ways, policy, TAGS + width
    table[:, STATE] = np.where(policy == RANDOM, (seed * 2654435761 + 12345) & 0x7FFFFFFF, 0)
    table[:, TAGS : TAGS + width] = EMPTY
    return table


@inline
def _tree_touch(bits, way, ways):
    """Point every node on the way's path away from it."""
    node, low, half = 1, 0, ways >> 1
    while half > 0:
        if way < low + half:
            bits |= 1 << node
            node = 2 * node
        else:
            bits &= ~(1 << node)
            node = 2 * node + 1
            low += half
        half >>= 1
    return bits


@inline
def _tree_victim(bits, ways):
    """Follow the nodes; a clear bit is the lower half."""
    node, low, half = 1, 0, ways >> 1
    while half > 0:
        if bits >> node & 1:
            node = 2 * node + 1
            low += half
        else:
            node = 2 * node
        half >>= 1
    return low


@inline
def _touch(table, s, way, filled):
    """Note a hit on, or a fill of, a way."""
    policy, state = table[s, POLICY], table[s, STATE]
    if policy == TREE_PLRU:
        table[s, STATE] = _tree_touch(state, way, table[s, WAYS])
    elif policy == NRU:
        bits = state | 1 << way
        if bits == (1 << table[s, WAYS]) - 1:
            bits = 1 << way
        table[s, STATE] = bits
    elif policy == SRRIP:
        table[s, table[s, AGES] + way] = 2 if filled else 0
    elif policy == SKYLAKE:
        group = way >> 2
        bits = _tree_touch(state >> 4 * group & 15, way & 3, 4)
        table[s, STATE] = (state & ~(15 << 4 * group) & 0xFFF) | bits << 4 * group | group << 12


@inline
def _victim(table, s):
    """The way whose tag goes next in a full set."""
    policy, ways, state = table[s, POLICY], table[s, WAYS], table[s, STATE]
    if policy == RANDOM:
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        table[s, STATE] = state
        return (state >> 16) % ways
    if policy == TREE_PLRU:
        return _tree_victim(state, ways)
    if policy == NRU:
        way = 0
        while way < ways - 1 and state >> way & 1:
            way += 1
        return way
    if policy == SRRIP:
        ages = table[s, AGES]
        oldest = 0
        for way in range(1, ways):
            if table[s, ages + way] > table[s, ages + oldest]:
                oldest = way
        older = 3 - table[s, ages + oldest]
        for way in range(ways):
            table[s, ages + way] += older
        return oldest
    group = ((state >> 12) + 1) % 3
    return 4 * group + _tree_victim(state >> 4 * group & 15, 4)


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
                if table[s, POLICY] == NRU:
                    table[s, STATE] &= ~(1 << (at - TAGS))
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
