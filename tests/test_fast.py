"""The fast path gives the same counts as the general kernels, which the oracle holds."""

import msgspec
import numpy as np
import pytest

from pagewalk.hardware.load import load, names
from pagewalk.hardware.machine import Machine, Memory, Psc, Tlb, Walker
from pagewalk.linux.mapping import map_trace
from pagewalk.replay.engine import Run, replay
from pagewalk.replay.fast import FastPath
from pagewalk.study.replays import subject
from pagewalk.trace.trace import FETCH, STORE, from_pages

KINDS = ["load", "store", "fetch"]


def both(trace, mapping, machine, **more):
    """Replay on either path; return what must be equal, positions of misses included."""
    found = []
    for fast, chunk in ((True, 1 << 20), (True, 777), (False, 5000)):
        at = [], []

        def keep(l1, stlb, at=at):
            at[0].extend(l1.tolist())
            at[1].extend(stlb.tolist())

        counted = replay(trace, mapping, machine, fast=fast, chunk=chunk, on_misses=keep, **more)
        found.append((msgspec.to_builtins(counted) | {"seconds": 0}, *at))
    assert found[0] == found[1]
    assert found[0] == found[2]
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


@pytest.mark.parametrize("name", names())
def test_presets_on_the_kernel_trace(name):
    opened, machine = subject("sample:gitdiff"), load(name)
    head = next(opened.trace.chunks("flags", size=200_000))
    short = from_pages("short", opened.trace.pages, head.page, flags=head.flags)
    mapping = opened.mapped("pmd", machine)
    both(short, mapping, machine)


def test_it_is_taken_where_it_applies_and_nowhere_else():
    trace = from_pages("few", np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint32))
    mapping = map_trace(trace.pages, None, "base")
    for name in ("textbook-setassoc", "textbook-fullassoc", "ibm-power9", "arm-neoverse-v2"):
        machine = load(name)
        assert taken(trace, map_trace(trace.pages, None, "base"), machine), name
    for name in ("intel-skylake-sp", "amd-zen3-milan-guest"):
        assert not taken(trace, mapping, load(name)), name
