"""Translate: everything that a replay needs to know of an address, worked out once for each distinct page.

The kernels see only the small dense integers made here: no geometry, no hash, no 64-bit address.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.index import evaluate, set_index
from pagewalk.hardware.machine import SIZES, Machine, Psc, Tlb
from pagewalk.linux.geometry import Geometry
from pagewalk.linux.mapping import Mapping

KINDS = ("load", "store", "fetch")
INCLUSIONS = ("none", "inclusive", "exclusive")
"""In the order of the kernel's numbers."""
TABLES_AT = 1 << 58
"""Physical address of the first page-table page. Ours: no recording says where tables lay."""
HOST_TABLES_AT = 1 << 60
SCATTER = 0x9E3779B1
"""Odd, so that multiplying modulo a power of two is a permutation: spreads table pages over cache sets."""


@dataclass(frozen=True)
class LevelTable:
    """Where each unit goes at one TLB level; rows are kinds of access (load, store, fetch).

    Attributes
    ----------
    set_of, tag_of : ndarray of int32, shape (3, units)
        -1 where no array of the level serves the kind.
    ways, policy, number, cycles : ndarray of int64, shape (sets,)
        Of each set of one CPU; `number` is that within its own array.
    array_of, entry_number : ndarray, shape (3, units)
        Which array of the level holds the unit (-1: none), and the page number of the entry there.
    beside_number, beside_set, beside_tag : ndarray, shape (n, units)
        What else a walk for the unit keeps in the array of its loads, in this order: page number, set and tag
        of each entry; set -1 where it keeps none.
    tag_space, tag_start, tag_end : ndarray of int64, shape (tags,)
        Address space and range (in 4 KiB pages, where the trace has it) that each tag covers; tags are the
        same at both levels.
    """

    set_of: NDArray[np.int32]
    tag_of: NDArray[np.int32]
    ways: NDArray[np.int64]
    policy: NDArray[np.int64]
    number: NDArray[np.int64]
    cycles: NDArray[np.int64]
    tag_space: NDArray[np.int64]
    tag_start: NDArray[np.int64]
    tag_end: NDArray[np.int64]
    array_of: NDArray[np.int64]
    entry_number: NDArray[np.int64]
    beside_number: NDArray[np.int64]
    beside_set: NDArray[np.int32]
    beside_tag: NDArray[np.int32]


@dataclass(frozen=True)
class PscTable:
    """Paging-structure caches, lowest level first, as one table of sets."""

    names: tuple[str, ...]
    level: NDArray[np.int8]
    first: NDArray[np.int8]
    set_of: NDArray[np.int32]
    tag_of: NDArray[np.int32]
    tag_space: NDArray[np.int64]
    ways: NDArray[np.int64]
    policy: NDArray[np.int64]
    number: NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """A trace's distinct pages under one mapping on one machine.

    Attributes
    ----------
    unit_of_page : ndarray of int32, shape (distinct,)
        Translation unit of each distinct base page: the finest that any level or the leaf itself tells apart.
    first, second : LevelTable
    leaf_level : ndarray of int8, shape (units,)
    entry : ndarray of int64, shape (levels + 1, units)
        Physical address of the entry read at each level; row 0 is the unit's own first byte.
    psc : PscTable
    page : ndarray of int64, shape (units,)
        Virtual page number (4 KiB) of each unit's first touched page.
    """

    unit_of_page: NDArray[np.int32]
    first: LevelTable
    second: LevelTable
    leaf_level: NDArray[np.int8]
    entry: NDArray[np.int64]
    psc: PscTable
    page: NDArray[np.int64]


def dense(*columns: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the distinct rows; return the first index of each and the number of every row."""
    varying = [c for c in columns if len(c) and (c != c[0]).any()] or [columns[0]]
    if len(varying) == 1:
        _, index, inverse = np.unique(varying[0], return_index=True, return_inverse=True)
    else:
        order = np.lexsort(varying[::-1])
        new = np.zeros(len(order), bool)
        for column in varying:
            ordered = column[order]
            new[1:] |= ordered[1:] != ordered[:-1]
        number = np.cumsum(new)
        inverse = np.empty(len(order), np.int64)
        inverse[order] = number
        index = order[np.concatenate([[True], new[1:]])] if len(order) else order
    return index.astype(np.int64), inverse.astype(np.int64)


def _entry_shifts(
    arrays: list[Tlb],
    choose: str,
    kind: str,
    page: NDArray[np.int64],
    leaf: NDArray[np.uint8],
    contiguous: NDArray[np.uint8],
    base: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which array serves each page for a kind of access (-1: none), and log2 of what its entry covers."""
    chosen = np.full(len(page), -1, np.int64)
    shift = leaf.astype(np.int64)
    serving = [(i, a) for i, a in enumerate(arrays) if kind in a.serves]
    for size in np.unique(leaf).tolist():
        here = np.flatnonzero(leaf == size)
        held = {i: [SIZES[name] for name in a.holds] or [size] for i, a in serving}
        smaller = [s for sizes in held.values() for s in sizes if s <= size]
        if not smaller:
            continue
        entry = max(smaller)
        candidates = np.array([i for i, sizes in held.items() if entry in sizes])
        shift[here] = entry
        if len(candidates) == 1:
            chosen[here] = candidates[0]
        else:
            number = page[here] >> (entry - 12)
            chosen[here] = candidates[evaluate(choose, number) % len(candidates)]
        if size == base:
            span = np.array([a.coalesce.bit_length() - 1 for a in arrays])[chosen[here]]
            shift[here] = np.minimum(entry + span, np.maximum(contiguous[here], entry))
    return chosen, shift


def _policies(names: list[str]) -> NDArray[np.int64]:
    from pagewalk.kernels.general.assoc import POLICIES

    return np.array([POLICIES.index(name) for name in names], np.int64)


def _geometry_of(
    arrays: list[Tlb] | list[Psc],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sets, ways, and first set of each array when all are laid one after the other."""
    ways = np.array([a.ways or a.entries for a in arrays], np.int64)
    sets = np.array([a.entries for a in arrays], np.int64) // ways if len(arrays) else ways
    return sets, ways, np.concatenate([[0], np.cumsum(sets)]).astype(np.int64)


def _by_set(
    arrays: list[Tlb] | list[Psc], values: NDArray[np.int64], sets: NDArray[np.int64]
) -> NDArray[np.int64]:
    return np.repeat(values, sets) if len(arrays) else np.zeros(0, np.int64)


def translate(
    mapping: Mapping,
    machine: Machine,
    spaces: NDArray[np.uint16] | None = None,
    recorded: NDArray[np.int64] | None = None,
) -> Tables:
    """Work out, for every distinct page, all that the kernels will look up.

    Parameters
    ----------
    mapping : Mapping
    machine : Machine
    spaces : ndarray of uint16, shape (distinct,), optional
        Address space of each distinct page; 0 is global.
    recorded : ndarray of int64, shape (distinct,), optional
        Where the trace has each distinct page (4 KiB page number), if the mapping has moved it: the ranges
        of its events are in these addresses.

    Raises
    ------
    BadInput
        The machine cannot hold what the mapping maps.
    """
    geometry, page = mapping.geometry, mapping.page
    space = np.zeros(len(page), np.int64) if spaces is None else spaces.astype(np.int64)
    leaf = mapping.leaf_shift
    if machine.guest is not None:
        leaf = np.minimum(leaf, SIZES[machine.guest.host_leaf]).astype(np.uint8)
    leaf_level = geometry.leaf_level(mapping.leaf_shift)
    own_entry = np.array([0] + [geometry.entry_shift(n) for n in range(1, geometry.levels + 1)])[leaf_level]

    contiguous = mapping.contiguous_shift
    if machine.guest is not None:
        contiguous = np.minimum(contiguous, SIZES[machine.guest.host_leaf])
    placed = {}
    finest = np.minimum(own_entry, leaf)
    for level in (1, 2):
        arrays = [a for a in machine.tlb if a.level == level]
        for k, kind in enumerate(KINDS):
            chosen, shift = _entry_shifts(
                arrays, machine.choose, kind, page, leaf, contiguous, geometry.base_shift
            )
            placed[level, k] = chosen, shift
            finest = np.minimum(finest, np.where(chosen >= 0, shift, 63))
    some, unit_of_page = dense(finest, page >> (finest - 12), space)

    both = [(level, k) for level in (1, 2) for k in range(3)]
    chosen, shifts = (np.stack([placed[row][part][some] for row in both]) for part in (0, 1))
    if machine.inclusion != "none" and (shifts != shifts[0])[chosen >= 0].any():
        raise BadInput(
            machine.id or machine.name,
            f"inclusion = {machine.inclusion!r} needs entries of one shape at both TLB levels",
            'give all arrays the same `holds` and `coalesce`, or set inclusion = "none"',
        )
    alike = [next(i for i in range(6) if (shifts[i] == shifts[row]).all()) for row in range(6)]
    number = page[some] >> (shifts - 12)
    rows = sorted(set(alike))
    shift_of, number_of = shifts[rows].ravel(), number[rows].ravel()
    index, found = dense(shift_of, number_of, np.tile(space[some], len(rows)))
    tag = found.reshape(len(rows), -1)[[rows.index(row) for row in alike]]
    moved = np.zeros(len(page), np.int64) if recorded is None else page - recorded
    start = (number_of[index] << (shift_of[index] - 12)) - np.tile(moved[some], len(rows))[index]
    nested = machine.guest is not None
    entry = _entries(geometry, page[some], space[some], mapping.frame[some], leaf_level[some], nested)
    shared = machine.guest is not None and machine.guest.walks_in_stlb
    beside = _beside(page[some], leaf_level[some], entry) if shared else np.zeros((0, len(some)), np.int64)
    which = np.repeat(np.arange(len(beside)), len(some))
    others, other = dense(which, beside.ravel(), np.tile(space[some], len(beside)))
    beside_tag = (len(index) + other.reshape(beside.shape)).astype(np.int32)
    end = start + (1 << (shift_of[index] - 12))
    none = np.zeros(len(others), np.int64)
    owner = np.tile(space[some], len(rows))[index]
    tags = np.append(owner, none), np.append(start, none), np.append(end, none)
    first, second = (
        _level(
            [a for a in machine.tlb if a.level == level],
            chosen[rows],
            number[rows],
            tag[rows],
            tags,
            beside if level == 2 else beside[:0],
            beside_tag if level == 2 else beside_tag[:0],
        )
        for level, rows in ((1, slice(0, 3)), (2, slice(3, 6)))
    )
    return Tables(
        unit_of_page.astype(np.int32),
        first,
        second,
        leaf_level[some],
        entry,
        walk_caches(machine, geometry, page[some], space[some], leaf_level[some]),
        page[some],
    )


def _level(
    arrays: list[Tlb],
    chosen: NDArray[np.int64],
    number: NDArray[np.int64],
    tag: NDArray[np.int64],
    tags: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    beside_number: NDArray[np.int64],
    beside_tag: NDArray[np.int32],
) -> LevelTable:
    """Lay the arrays of a level one after the other; `chosen`, `number`, `tag` have a row for each kind."""
    sets, ways, base = _geometry_of(arrays)
    set_of = np.full(chosen.shape, -1, np.int32)
    for i, array in enumerate(arrays):
        here = chosen == i
        set_of[here] = base[i] + set_index(array.index, number[here], int(sets[i]))
    beside_set = np.full(beside_number.shape, -1, np.int32)
    for i, array in enumerate(arrays):
        here = (chosen[0] == i) & (beside_number >= 0)
        beside_set[here] = base[i] + set_index(array.index, beside_number[here], int(sets[i]))
    return LevelTable(
        set_of,
        np.where(set_of < 0, -1, tag).astype(np.int32),
        _by_set(arrays, ways, sets),
        _by_set(arrays, _policies([a.policy for a in arrays]), sets),
        np.concatenate([np.arange(n) for n in sets]) if len(arrays) else np.zeros(0, np.int64),
        _by_set(arrays, np.array([a.hit_cycles for a in arrays], np.int64), sets),
        *tags,
        chosen,
        number,
        beside_number,
        beside_set,
        beside_tag,
    )


def _beside(
    page: NDArray[np.int64], leaf_level: NDArray[np.int8], entry: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Page numbers of what a guest's walk remembers, as of `Guest.walks_in_stlb`; -1 where there is none.

    Returns
    -------
    ndarray of int64, shape (4, units)
        The guest's PDE; the table that holds the leaf; the host's PDEs of that table, and of the frame.
    """
    order = SIZES["2M"] - 12
    table = entry[leaf_level, np.arange(len(page))] >> 12
    pde = np.where(leaf_level == 1, page >> order, -1)
    return np.stack([pde, table, table >> order, entry[0] >> (12 + order)])


def resized(level: LevelTable, arrays: list[Tlb]) -> LevelTable:
    """The level with other sets, ways, index functions, policies and hit cycles in its arrays.

    Parameters
    ----------
    level : LevelTable
    arrays : list of Tlb
        As many as before, that hold, serve and coalesce the same.
    """
    tags = level.tag_space, level.tag_start, level.tag_end
    own = level.array_of, level.entry_number, level.tag_of.astype(np.int64)
    return _level(arrays, *own, tags, level.beside_number, level.beside_tag)


def walk_caches(
    machine: Machine,
    geometry: Geometry,
    page: NDArray[np.int64],
    space: NDArray[np.int64],
    leaf_level: NDArray[np.int8],
) -> PscTable:
    """Lay the paging-structure caches of a machine one after the other; arrays are of shape (units,)."""
    caches = sorted(machine.psc, key=lambda p: p.level)
    sets, ways, base = _geometry_of(caches)
    level = np.array([p.level for p in caches], np.int8)
    units = len(page)
    set_of = np.zeros((len(caches), units), np.int32)
    tag_of = np.zeros((len(caches), units), np.int32)
    tag_space = [np.zeros(0, np.int64)]
    for p, cache in enumerate(caches):
        key = page >> (geometry.entry_shift(cache.level) - 12)
        index, tag = dense(key, space)
        set_of[p] = base[p] + key % sets[p]
        tag_of[p] = tag + sum(len(t) for t in tag_space)
        tag_space.append(space[index])
    return PscTable(
        tuple(p.name for p in caches),
        level,
        np.searchsorted(level, leaf_level, side="right").astype(np.int8),
        set_of,
        tag_of,
        np.concatenate(tag_space),
        _by_set(caches, ways, sets),
        _by_set(caches, _policies([p.policy for p in caches]), sets),
        np.concatenate([np.arange(n) for n in sets]) if caches else np.zeros(0, np.int64),
    )


def _entries(
    geometry: Geometry,
    page: NDArray[np.int64],
    space: NDArray[np.int64],
    frame: NDArray[np.int64],
    leaf_level: NDArray[np.int8],
    together: bool,
) -> NDArray[np.int64]:
    """Physical address of the entry read at each level; where tables lie is ours, the rest is arithmetic.

    Tables lie scattered, or `together`: those of a level one after the other, in the order of addresses.
    """
    entry = np.zeros((geometry.levels + 1, len(page)), np.int64)
    entry[0] = frame << 12
    for level in range(1, geometry.levels + 1):
        bits = geometry.index_bits[level - 1]
        number = page >> (geometry.entry_shift(level) - 12)
        above = number >> bits if level < geometry.levels else np.zeros_like(number)
        present = leaf_level <= level
        table = dense(above, space)[1]
        size = max(geometry.entry_bytes << bits, 64)
        slot = table if together else (table * SCATTER + level * 0x5BD1E995) % (1 << 24)
        entry[level] = (
            TABLES_AT + ((level << 24) + slot) * size + (number & ((1 << bits) - 1)) * geometry.entry_bytes
        )
        entry[level][~present] = 0
    return entry
