"""The TLB stage: a stream of translation units through L1 and STLB, for any machine."""

from typing import NamedTuple

import numpy as np

from pagewalk.kernels._jit import jit
from pagewalk.kernels.general.assoc import EMPTY, drop_marked, find, insert, remove

INDEPENDENT, INCLUSIVE, EXCLUSIVE = range(3)
"""STLB against L1: each fills on its own; an STLB eviction drops the L1 entry; L1 victims move down."""


class Level(NamedTuple):
    """One TLB level of one machine under one mapping: where each unit goes, by kind of access."""

    set_of: np.ndarray
    """int32 (3, units): set for a load, store, fetch of the unit; -1 where no array serves it."""
    tag_of: np.ndarray
    """int32 (3, units): dense number of the entry that covers the unit."""
    cycles: np.ndarray
    """int64 (sets,): added by a hit in the set."""
    sets: int
    """Sets of one CPU; CPU c uses the sets from c * sets."""
    table: np.ndarray
    beside_set: np.ndarray
    """int32 (n, units): sets of what else a walk for the unit keeps at this level; -1: nothing."""
    beside_tag: np.ndarray
    """int32 (n, units)"""


@jit
def replay_units(unit, kind, cpu, first, second, units_of_tag, inclusion, l1_missed, stlb_missed, sums):
    """Send units through both levels, one by one.

    Fills `l1_missed` and `stlb_missed` with indices into `unit`, returns their counts; adds STLB hits and
    their cycles to `sums`.
    """
    l1, stlb = first.table, second.table
    n1 = n2 = 0
    for i in range(len(unit)):
        u, k, c = unit[i], kind[i], cpu[i]
        s1, t1 = first.set_of[k, u], first.tag_of[k, u]
        if s1 >= 0:
            s1 += c * first.sets
            if find(l1, s1, t1):
                continue
        l1_missed[n1] = i
        n1 += 1
        s2, t2 = second.set_of[k, u], second.tag_of[k, u]
        if s2 >= 0:
            s2 += c * second.sets
        hit = s2 >= 0 and find(stlb, s2, t2)
        if hit:
            sums[0] += 1
            sums[1] += second.cycles[s2]
            if inclusion == EXCLUSIVE and s1 >= 0:
                remove(stlb, s2, t2)
        else:
            stlb_missed[n2] = i
            n2 += 1
            for n in range(len(second.beside_set)):
                s = second.beside_set[n, u]
                if s >= 0 and not find(stlb, s + c * second.sets, second.beside_tag[n, u]):
                    insert(stlb, s + c * second.sets, second.beside_tag[n, u])
            if s2 >= 0 and (inclusion != EXCLUSIVE or s1 < 0):
                gone = insert(stlb, s2, t2)
                if inclusion == INCLUSIVE and gone != EMPTY:
                    g = units_of_tag[gone]
                    for other in range(3):
                        if first.set_of[other, g] >= 0:
                            remove(l1, first.set_of[other, g] + c * first.sets, first.tag_of[other, g])
        if s1 >= 0:
            gone = insert(l1, s1, t1)
            if inclusion == EXCLUSIVE and gone != EMPTY:
                g = units_of_tag[gone]
                s2 = second.set_of[k, g]
                if s2 >= 0 and not find(stlb, s2 + c * second.sets, gone):
                    insert(stlb, s2 + c * second.sets, gone)
    return n1, n2


@jit
def flush_sets(table, first_set, end_set, marked):
    """Drop the marked tags of a range of sets; return how many went."""
    return drop_marked(table, first_set, end_set, marked)
