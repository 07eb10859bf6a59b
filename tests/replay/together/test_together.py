"""Machines that share work give what each gives on its own; the lanes are what plain lists say."""

import os
import subprocess
import sys
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagewalk.hardware.load import load
from pagewalk.hardware.machine import Memory, Psc, Walker
from pagewalk.replay.engine import replay
from pagewalk.replay.tables import translate
from pagewalk.replay.together import cpus as cpus_module
from pagewalk.replay.together import together as module
from pagewalk.replay.together.cpus import by_cpu, merged
from pagewalk.replay.together.shape import shape
from pagewalk.replay.together.stacks import Stacks, passes
from pagewalk.replay.together.together import Counted, together
from pagewalk.study.replays import Subject, replays
from pagewalk.trace.trace import FETCH, STORE, from_pages
from strategies import (
    POLICIES,
    VMALLOC,
    caches,
    machine,
    machines,
    mapping,
    mappings,
    pscs,
    shapes,
    tlb,
    traces,
)

REPEATABLE = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def alone(trace, mapped, hardware, **more):
    found = replay(trace, mapped, hardware, **more)
    return Counted(found.counts, found.cycles, found.memory)


@st.composite
def variants(draw, hardware, cpus):
    """The machine with other second levels, walk caches, data caches, memory and walkers."""
    found = []
    for array in hardware.tlb:
        if array.level == 2 and draw(st.booleans()):
            shaped = draw(shapes(POLICIES))
            array = msgspec.structs.replace(
                array, **shaped, index="modulo", hit_cycles=draw(st.sampled_from([0, 7]))
            )
        found.append(array)
    more = {}
    if draw(st.booleans()):
        more["psc"] = draw(pscs(4, POLICIES))
    if draw(st.booleans()):
        more["cache"] = draw(caches(cpus, POLICIES))
    if draw(st.booleans()):
        more["memory"] = Memory(latency_cycles=draw(st.sampled_from([50, 100])))
    more["walker"] = msgspec.structs.replace(
        hardware.walker if draw(st.booleans()) else Walker(start_cycles=3, window_accesses=4), enters=""
    )
    return msgspec.structs.replace(hardware, tlb=found, **more)


@settings(REPEATABLE, max_examples=40)
@given(st.data())
def test_any_machines_are_as_alone(data):
    cpus = data.draw(st.integers(1, 3))
    mapped, spaces = data.draw(mappings(with_spaces=data.draw(st.booleans())))
    trace = data.draw(traces(mapped, spaces, cpus=cpus, with_events=data.draw(st.integers(0, 4)) == 0))
    first = data.draw(machines(cpus=cpus))
    grid = [first, *(data.draw(variants(first, cpus)) for _ in range(data.draw(st.integers(1, 5))))]
    grid.append(data.draw(machines(cpus=cpus)))
    mode = data.draw(st.sampled_from(["walks-only"] * 4 + ["full"]))
    fetches = data.draw(st.sampled_from([None, False, True]))
    found = together(trace, mapped, grid, cache_mode=mode, fetches=fetches)
    assert found == [alone(trace, mapped, m, cache_mode=mode, fetches=fetches) for m in grid]


def bytes_of(found):
    return msgspec.json.encode(msgspec.structs.replace(found, seconds={}))


@settings(REPEATABLE, max_examples=40)
@given(st.data())
def test_parts_by_cpu_are_the_whole(data):
    """To the byte: counts, cycles, regions, the time series, and their order."""
    cpus = data.draw(st.integers(2, 5))
    mapped, spaces = data.draw(mappings(with_spaces=data.draw(st.booleans())))
    trace = data.draw(traces(mapped, spaces, cpus=cpus, with_events=data.draw(st.integers(0, 5)) == 0))
    hardware = data.draw(machines(cpus=cpus))
    if data.draw(st.integers(0, 5)):
        walker = msgspec.structs.replace(hardware.walker, window_accesses=0)
        own = [msgspec.structs.replace(cache, shared=False) for cache in hardware.cache]
        hardware = msgspec.structs.replace(hardware, walker=walker, cache=own)
    mode = data.draw(st.sampled_from(["walks-only", "full"]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cpus_module, "FEW", data.draw(st.sampled_from([1, 8])))
        parts = by_cpu(trace, mapped, hardware, 2)
    quiet = trace.events is None or not len(trace.events)
    alone = not quiet or hardware.walker.window_accesses or any(c.shared for c in hardware.cache)
    assert (len(parts) == 1) == bool(alone or trace.cpus == 1)
    found = merged([replay(part, mapped, hardware, cache_mode=mode) for part in parts])
    assert bytes_of(found) == bytes_of(replay(trace, mapped, hardware, cache_mode=mode))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(threads):
    rng = np.random.default_rng(4)
    cpu, page = rng.integers(0, 3, 30_000).astype(np.uint8), rng.integers(0, 5000, 30_000).astype(np.uint32)
    trace = from_pages("cpus", VMALLOC + np.arange(5000, dtype=np.uint64), page, cpu=cpu)
    opened, done = Subject(trace, None, 0.0), []
    hardware = [load("textbook-setassoc"), load("amd-zen3-milan")]
    found = replays(opened, hardware, ["base", "pmd"], threads=threads, progress=done.append)
    for one, (m, name) in zip(found, [(m, name) for m in hardware for name in ("base", "pmd")], strict=True):
        counted = replay(trace, opened.mapped(name, m), m)
        assert bytes_of(one) == bytes_of(msgspec.structs.replace(counted, notes=one.notes))
    assert sum(done) <= 4 * trace.accesses


def in_pieces(trace, size):
    """The same trace, read in smaller chunks."""

    def read(columns, most):
        return trace.read(columns, min(size, most))

    return replace(trace, read=read)


@st.composite
def lru_grids(draw):
    """Plain LRU machines of one shape, several walk caches among them."""
    first = tlb(1, 8, 2, serves=["load", "store"])
    walked = [
        [],
        [Psc(name="PDE", level=2, entries=draw(st.sampled_from([1, 6, 8])), ways=0)],
        [Psc(name="PDPTE", level=3, entries=2), Psc(name="PDE", level=2, entries=4, ways=2)],
    ]
    found = []
    behind = draw(st.lists(st.sampled_from(range(3)), min_size=1, max_size=2))
    for sets in draw(st.lists(st.integers(1, 40), min_size=1, max_size=20, unique=True)):
        for ways in draw(st.lists(st.integers(1, 34), min_size=1, max_size=2, unique=True)):
            second = tlb(2, sets * ways, ways, serves=["load", "store"], hit_cycles=draw(st.integers(0, 1)))
            walker = Walker(start_cycles=draw(st.sampled_from([0, 5])))
            for walks in behind if len(behind) == 2 else [draw(st.sampled_from(range(3)))]:
                memory = draw(st.sampled_from([9, 80]))
                found.append(machine(first, second, *walked[walks], walker=walker, memory=memory))
    return found


@settings(REPEATABLE, max_examples=16)
@given(lru_grids(), st.integers(0, 2**32), st.sampled_from([50, 1 << 20]), st.sampled_from([3, 400, 3000]))
def test_lru_machines_are_as_alone(grid, seed, size, pages):
    rng = np.random.default_rng(seed)
    where = VMALLOC + np.sort(rng.choice(1 << 14, pages, replace=False))
    leaf = np.where(where % 4096 < 1024, 21, np.where(where > VMALLOC + 12_288, 30, 12))
    page = (pages * rng.random(900) ** rng.integers(1, 4)).astype(np.uint32)
    flags = rng.choice(np.array([0, STORE, FETCH], np.uint8), len(page))
    trace = in_pieces(from_pages("drawn", where.astype(np.uint64), page, flags=flags), size)
    mapped = mapping(where.tolist(), leaf.tolist())
    found = together(trace, mapped, grid, fetches=False)
    assert found == [alone(trace, mapped, m, fetches=False) for m in grid]


def test_what_goes_where():
    """Plain LRU machines of one shape whose second levels are the same in one pass; others elsewhere."""
    trace = from_pages("few", np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint32))
    mapped = mapping(range(9))
    sizes = [tlb(2, 8 * ways, ways) for ways in range(1, 7)]
    bare = [machine(tlb(1, 4), second) for second in sizes]
    walked = [machine(tlb(1, 4), second, Psc(name="PDE", level=2, entries=2)) for second in sizes]
    random = machine(tlb(1, 4), tlb(2, 8, 2, policy="random"))
    waits = machine(tlb(1, 4), tlb(2, 8, 2), walker=Walker(window_accesses=3))
    fewer = [machine(tlb(1, 4), second, Psc(name="PDE", level=2, entries=4)) for second in sizes[2:]]
    few = [machine(tlb(1, 4), second, Psc(name="PDE", level=2, entries=6)) for second in sizes[3:]]
    grid = [*bare, *walked, random, waits, *fewer, *few]
    assert len({shape(m) for m in grid}) == 1
    assert shape(machine(tlb(1, 8), sizes[0])) != shape(bare[0])
    assert passes(trace, translate(mapped, bare[0]), grid, False) == (
        [list(range(12)), [14, 15, 16, 17]],
        [12, 13, 18, 19, 20],
    )
    assert passes(trace, translate(mapped, bare[0]), grid, True) == ([], list(range(21)))


def test_entries_that_need_more_bits_than_eight():
    """More tables of one set of a walk cache than 8 bits tell apart."""
    where = VMALLOC + 512 * np.arange(400)
    rng = np.random.default_rng(3)
    trace = from_pages("far", where.astype(np.uint64), rng.integers(0, 400, 5000).astype(np.uint32))
    mapped, pde = mapping(where.tolist()), Psc(name="PDE", level=2, entries=3)
    grid = [machine(tlb(1, 4), tlb(2, 16 * ways, ways), pde) for ways in range(1, 6)]
    stacks = Stacks(trace, mapped, translate(mapped, grid[0]), grid)
    assert [len(bits) for *_, bits in stacks.part.walks] == [16]
    assert together(trace, mapped, grid) == [alone(trace, mapped, m) for m in grid]


def test_walk_caches_with_room_for_all_are_the_same():
    trace = from_pages("few", np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint32).repeat(2))
    mapped = mapping(range(9))
    above = [Psc(name="PDPTE", level=3, entries=entries) for entries in (1, 2, 4)]
    below = [Psc(name="PDE", level=2, entries=entries) for entries in (1, 2)]
    grid = [machine(tlb(1, 4), tlb(2, 8 * w, w), p, q) for p in below for q in above for w in range(1, 5)]
    stacks = Stacks(trace, mapped, translate(mapped, grid[0]), grid)
    assert (stacks.part.walks_of, len(stacks.part.walks)) == ([0] * 6, 1)
    assert together(trace, mapped, grid) == [alone(trace, mapped, m) for m in grid]


def test_misses_go_on_in_several_lots(monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 7)
    rng = np.random.default_rng(1)
    trace = from_pages("lots", np.arange(500, dtype=np.uint64), rng.integers(0, 500, 4000).astype(np.uint32))
    mapped = mapping(range(500))
    first = load("arm-neoverse-v2")
    grid = [first, msgspec.structs.replace(first, memory=Memory(latency_cycles=7))]
    assert together(trace, mapped, grid) == [alone(trace, mapped, m) for m in grid]


def test_progress_counts_every_machine_once():
    trace = from_pages("some", np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint32).repeat(50))
    grid = [machine(tlb(1, 4), tlb(2, 8 * ways, ways)) for ways in range(1, 7)]
    grid += [machine(tlb(1, 2), tlb(2, 8)), load("arm-neoverse-v2")]
    for share in (True, False):
        done = []
        together(trace, mapping(range(9)), grid, progress=done.append, share=share)
        assert sum(done) == trace.accesses * len(grid)


def test_uncompiled_the_same():
    script = """if True:
        import numpy as np
        import test_together as t
        rng = np.random.default_rng(5)
        page = (300 * rng.random(400) ** 2).astype(np.uint32)
        trace = t.from_pages("few", np.arange(300, dtype=np.uint64), page)
        mapped, pde = t.mapping(range(300)), t.Psc(name="PDE", level=2, entries=3)
        grid = [t.machine(t.tlb(1, 4), t.tlb(2, 8 * ways, ways), pde) for ways in range(1, 6)]
        print(t.together(trace, mapped, grid) == [t.alone(trace, mapped, m) for m in grid])
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
