"""The walk stage: which table entries the walker reads for each STLB miss, native or in a guest."""

from typing import NamedTuple

import numpy as np

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.general.assoc import find, insert

HOST = 0
"""Level noted for a read of the host's tables; the guest's or native levels count from 1 (PTE)."""


class Tables(NamedTuple):
    """What a walk needs to know of each unit."""

    levels: int
    """Table levels."""
    leaf_level: np.ndarray
    """int8 (units,): level of the table that holds the unit's leaf."""
    entry: np.ndarray
    """int64 (levels + 1, units): physical address of the entry read at each level; row 0: of its data."""
    psc_first: np.ndarray
    """int8 (units,): the lowest paging-structure cache that a walk of the unit probes."""
    psc_level: np.ndarray
    """int8 (pscs,): level whose entries each keeps, rising."""
    psc_set: np.ndarray
    """int32 (pscs, units)"""
    psc_tag: np.ndarray
    """int32 (pscs, units)"""
    psc_sets: int
    """Sets of one CPU, all caches together."""
    psc: np.ndarray


class Host(NamedTuple):
    """The second dimension of a guest's walk; `levels` 0 outside a guest."""

    levels: int
    leaf_level: int
    combined: bool
    """An entry of the guest's paging-structure caches gives the host's address of the table below it."""
    psc_level: np.ndarray
    """int8 (pscs,)"""
    psc_base: np.ndarray
    """int64 (pscs,): first set of each."""
    psc_sets: np.ndarray
    """int64 (pscs,): of one CPU, as the nested TLB's."""
    psc: np.ndarray
    nested_sets: int
    """0: no nested TLB."""
    nested: np.ndarray
    table_base: int
    """Physical address of the host's tables; each level is one array, 2**52 apart."""


@inline
def _host_reads(host, cpu, address, address_out, level_out, m):
    """Translate a guest-physical address: append the host entries read, return the new end."""
    leaf_shift = 12 + 9 * (host.leaf_level - 1)
    if host.nested_sets > 0:
        page = address >> leaf_shift
        s = cpu * host.nested_sets + page % host.nested_sets
        if find(host.nested, s, page):
            return m
        insert(host.nested, s, page)
    top = host.levels + 1
    for p in range(len(host.psc_level)):
        level = host.psc_level[p]
        if level > host.leaf_level:
            key = address >> (12 + 9 * (level - 1))
            s = cpu * host.psc_sets.sum() + host.psc_base[p] + key % host.psc_sets[p]
            if find(host.psc, s, key):
                top = level
                break
            insert(host.psc, s, key)
    for level in range(top - 1, host.leaf_level - 1, -1):
        address_out[m] = host.table_base + (level << 52) + ((address >> (12 + 9 * (level - 1))) << 3)
        level_out[m] = HOST
        m += 1
    return m


@jit
def walk(unit, cpu, tables, host, ends, address_out, level_out, psc_hits, by_refs):
    """Walk for each of the given units, on the CPU beside it.

    Writes the reads of each walk to `address_out` and `level_out`, one walk after the other; walk w ends at
    `ends[w]`. Adds to `psc_hits[p]` and `by_refs[reads]`. Returns the number of reads.
    """
    m = 0
    for w in range(len(unit)):
        u = unit[w]
        offset = cpu[w] * tables.psc_sets
        top, translated = tables.levels + 1, 0
        for p in range(tables.psc_first[u], len(tables.psc_level)):
            s = offset + tables.psc_set[p, u]
            if find(tables.psc, s, tables.psc_tag[p, u]):
                top = tables.psc_level[p]
                psc_hits[p] += 1
                translated = top - 1 if host.combined else 0
                break
            insert(tables.psc, s, tables.psc_tag[p, u])
        begin = m
        for level in range(top - 1, tables.leaf_level[u] - 1, -1):
            address = tables.entry[level, u]
            if host.levels > 0 and level != translated:
                m = _host_reads(host, cpu[w], address, address_out, level_out, m)
            address_out[m] = address
            level_out[m] = level
            m += 1
        if host.levels > 0:
            m = _host_reads(host, cpu[w], tables.entry[0, u], address_out, level_out, m)
        ends[w] = m
        by_refs[m - begin] += 1
    return m
