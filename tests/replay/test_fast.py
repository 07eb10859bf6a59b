"""The fast path gives the same counts as the general kernels, which the oracle holds."""

import msgspec
import numpy as np
import pytest

import strategies
from pagewalk.hardware.load import load, names
from pagewalk.hardware.machine import Cache, Machine, Memory, Psc, Tlb, Walker
from pagewalk.linux.mapping import map_trace
from pagewalk.replay.engine import Run, replay
from pagewalk.replay.paths.fast import FastPath
from pagewalk.study.replays import subject
from pagewalk.trace.trace import FETCH, STORE, from_pages

KINDS = ["load", "store", "fetch"]


def both(trace, mapping, machine, **more):
    """Replay on either path; return what must be equal, positions of misses included."""
    counted = [
        msgspec.to_builtins(replay(trace, mapping, machine, chunk=chunk, **more)) | {"seconds": 0}
        for chunk in (1 << 20, 777, 100)
    ]
    counted += [
        msgspec.to_builtins(replay(trace, mapping, machine, threads=2, **how, **more)) | {"seconds": 0}
        for how in ({}, {"chunk": 777}, {"fast": False})
    ]
    found = []
    for fast, chunk in ((True, 1 << 20), (True, 777), (False, 5000)):
        at = [], []

        def keep(l1, stlb, at=at):
            at[0].extend(l1.tolist())
            at[1].extend(stlb.tolist())

        one = replay(trace, mapping, machine, fast=fast, chunk=chunk, on_misses=keep, **more)
        found.append((msgspec.to_builtins(one) | {"seconds": 0}, *at))
    assert found[0] == found[1]
    assert found[0] == found[2]
    assert counted == [found[0][0]] * 6
    return found[0][0]


def plain(l1, stlb, psc=(), **more):
    return Machine(schema="pagewalk.machine/1", name="plain", tlb=[*l1, *stlb], psc=list(psc), **more)


def taken(trace, mapping, machine, fetches=False):
    path = Run(trace, mapping, machine, fetches, "walks-only", 1000, True).path
    return isinstance(path, FastPath)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("leaf", ["base", "pmd"])
def test_random_streams(seed, leaf):
    rng = np.random.default_rng(seed)
    pages = np.uint64(0xFFFFC90000000) + np.unique(rng.integers(0, 1 << (8 + 3 * seed), 400)).astype(
        np.uint64
    )
    order = (len(pages) * rng.random(20_000) ** (1 + seed % 3)).astype(np.uint32)
    flags = rng.choice(np.array([0, STORE, FETCH], np.uint8), len(order))
    trace = from_pages("random", pages, order, flags=flags)
    mapping = map_trace(trace.pages, None, leaf)
    tlb = [
        Tlb(name="L1", level=1, entries=16, ways=4, serves=["load"]),
        Tlb(name="L1 store", level=1, entries=3, ways=0, serves=["store"]),
        Tlb(name="L1 code", level=1, entries=8, ways=2, serves=["fetch"]),
    ]
    stlb = [Tlb(name="STLB", level=2, entries=96, ways=12, serves=KINDS, hit_cycles=7)]
    psc = [Psc(name="PDE", level=2, entries=8, ways=4), Psc(name="PDPTE", level=3, entries=2)]
    for walker in (Walker(start_cycles=5), Walker(count=2, window_accesses=10)):
        machine = plain(tlb, stlb, psc, memory=Memory(latency_cycles=90), walker=walker)
        assert taken(trace, mapping, machine, True)
        counted = both(trace, mapping, machine)
        assert counted["counts"]["walks"] > 0
        both(trace, mapping, machine, fetches=False)


@pytest.mark.parametrize("seed", range(12))
def test_reads_of_walks_through_random_caches(seed):
    """Small caches, so that each level evicts: victims move on, inclusive levels drop what they lose."""
    rng = np.random.default_rng(seed)
    pages = np.unique(rng.integers(0, 1 << rng.integers(12, 30), 3000)).astype(np.uint64)
    order = (len(pages) * rng.random(12_000) ** (1 + seed % 2)).astype(np.uint32)
    trace = from_pages("random", pages, order)
    mapping = map_trace(trace.pages, None, "base")
    cache = []
    for level in range(1 + seed % 3):
        ways = int(rng.choice([1, 2, 3, 8, 20]))
        cache.append(
            Cache(
                name=f"L{level + 1}",
                size_bytes=64 * ways * int(rng.choice([1, 3, 4])) << 2 * level,
                ways=ways,
                latency_cycles=4 * level + 4,
                slice_sets=int(rng.choice([0, 1, 4])),
                fill="victim" if level and rng.random() < 0.6 else "demand",
                inclusive=bool(level and rng.random() < 0.6),
            )
        )
    enters = rng.choice([c.name for c in cache if c.fill == "demand"])
    machine = plain(
        [Tlb(name="L1", level=1, entries=8, ways=4)],
        [Tlb(name="STLB", level=2, entries=16, ways=4)],
        [Psc(name="PDE", level=2, entries=4)],
        cache=cache,
        memory=Memory(latency_cycles=100),
        walker=Walker(enters=str(enters), start_cycles=3),
    )
    assert Run(trace, mapping, machine, False, "walks-only", 1000, True).reads is not None
    counted = both(trace, mapping, machine)
    assert counted["counts"]["walks"] > 1000


@pytest.mark.parametrize("name", names())
def test_presets_on_the_kernel_trace(name):
    opened, machine = subject("sample:gitdiff"), load(name)
    head = next(opened.trace.chunks("flags", size=60_000))
    short = from_pages("short", opened.trace.pages, head.page, flags=head.flags)
    mapping = opened.mapped("pmd", machine)
    both(short, mapping, machine)


L1_ARRAYS = {
    "merges neighbours": [Tlb(name="L1", level=1, entries=16, ways=4, serves=KINDS, coalesce=4)],
    "holds small pages only": [Tlb(name="L1", level=1, entries=16, ways=4, serves=KINDS, holds=["4K"])],
    "merges data only": [
        Tlb(name="L1 code", level=1, entries=8, ways=2, serves=["fetch"]),
        Tlb(name="L1", level=1, entries=16, ways=4, serves=["load", "store"], coalesce=8),
    ],
    "small pages for stores": [
        Tlb(name="L1 store", level=1, entries=8, ways=8, serves=["store"], holds=["4K"]),
        Tlb(name="L1", level=1, entries=16, ways=4, serves=["load", "fetch"]),
    ],
}
STLB_ARRAYS = {
    "plain": [Tlb(name="STLB", level=2, entries=48, ways=12, serves=KINDS)],
    "merges neighbours": [Tlb(name="STLB", level=2, entries=48, ways=12, serves=KINDS, coalesce=8)],
    "of data and of code": [
        Tlb(name="STLB code", level=2, entries=32, ways=4, serves=["fetch"]),
        Tlb(name="STLB", level=2, entries=48, ways=12, serves=["load", "store"], holds=["4K"]),
    ],
}
LEAVES = {"base": (12, 12), "merged": (12, 15), "large": (21, 21)}
"""log2 of a leaf, and of the contiguous frames that it lies in."""
NEITHER = {
    ("merges data only", "plain", "merged"),
    ("holds small pages only", "of data and of code", "large"),
    ("small pages for stores", "of data and of code", "large"),
}
"""Where neither level's entries are parts of the other's, since it depends on the kind of access."""


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("stlb", STLB_ARRAYS)
@pytest.mark.parametrize("l1", L1_ARRAYS)
def test_levels_whose_entries_cover_different_ranges(l1, stlb, leaf):
    rng = np.random.default_rng(11)
    areas = 0xFFFFC90000000 + np.arange(6)[:, None] * (1 << 11)
    pages = np.sort((areas + rng.permutation(900)[:150]).ravel())
    order = (len(pages) * rng.random(15_000) ** 2).astype(np.uint32)
    flags = rng.choice(np.array([0, STORE, FETCH], np.uint8), len(order))
    trace = from_pages("areas", pages.astype(np.uint64), order, flags=flags)
    psc = [Psc(name="PDE", level=2, entries=4), Psc(name="PDPTE", level=3, entries=2)]
    machine = plain(L1_ARRAYS[l1], STLB_ARRAYS[stlb], psc, memory=Memory(latency_cycles=90))
    shift, contiguous = LEAVES[leaf]
    mapped = strategies.mapping(pages.tolist(), shift, contiguous=[contiguous] * len(pages))
    assert taken(trace, mapped, machine, True) == ((l1, stlb, leaf) not in NEITHER)
    assert both(trace, mapped, machine, fetches=True)["counts"]["walks"] > 0


@pytest.mark.parametrize("regions", [1, 3])
@pytest.mark.parametrize("accesses", [0, 1, 63, 199, 200, 201, 60_000, 1_050_000])
def test_windows_of_any_length(accesses, regions):
    """Pages counted as one and apart; fewer records than windows; windows longer than a piece or a chunk."""
    rng = np.random.default_rng(accesses)
    pages = np.arange(0xFFFFC90000000, 0xFFFFC90000000 + 700)
    order = (700 * rng.random(accesses) ** 2).astype(np.uint32)
    mapped = strategies.mapping(pages.tolist(), regions=regions)
    few = plain(
        [Tlb(name="L1", level=1, entries=16, ways=4)],
        [Tlb(name="STLB", level=2, entries=48, ways=12)],
        [Psc(name="PDE", level=2, entries=4)],
        memory=Memory(latency_cycles=90),
    )
    trace = from_pages("any", pages.astype(np.uint64), order)
    counted = both(trace, mapped, few)
    assert counted["counts"]["accesses"] == accesses


def test_it_is_taken_where_it_applies_and_nowhere_else():
    trace = from_pages("few", np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint32))
    mapping = map_trace(trace.pages, None, "base")
    slow = {name for name in names() if not taken(trace, mapping, load(name), True)}
    machines = [load(name) for name in names()]
    of_another_policy = {m.id for m in machines if any(a.policy != "lru" for a in (*m.tlb, *m.psc))}
    assert slow == of_another_policy | {m.id for m in machines if m.guest}
    assert "intel-skylake-sp" in of_another_policy
