"""A kernel lives through events: accesses lie where it has things then, and flushes cost cycles."""

import msgspec
import numpy as np
import pytest

from pagewalk.hardware.load import load
from pagewalk.hardware.machine import Flush
from pagewalk.linux.geometry import MIB
from pagewalk.linux.memory.kernel import (
    Booted,
    SetMemory,
    UnmapAliases,
    Vfree,
    Vmalloc,
)
from pagewalk.linux.memory.pages import FreeMemory, FreePages, HoldMemory, Pages, TakePages
from pagewalk.replay.engine import replay
from pagewalk.study.play.play import play
from pagewalk.study.play.result import lives_of, played
from pagewalk.study.play.steps import Access, KernelTable, Touch, start
from pagewalk.study.scenario import Scenario, read
from pagewalk.trace.trace import FETCH, FLUSH_ALL, STORE
from reference import simulate

TABLE = KernelTable(name="k", release="6.12", nodes=[64 * MIB], cpus=2)
GIB = 1 << 30


def walk(what, rounds=1, **more):
    """Touch every word of something in order, `rounds` bytes / 8 of it."""
    return Access(rounds=rounds, touch=[Touch(what=what, pattern="sequential", **more)])


def lived(*steps, table=TABLE, arch="x86-64"):
    return play("t", table, arch, list(steps), "case.toml")


def addresses(one):
    (chunk,) = one.trace.chunks("offset", "flags", "cpu")
    return (one.trace.pages[chunk.page] << np.uint64(12)) + chunk.offset, chunk


def test_an_area_is_touched_where_the_kernel_put_it():
    one = lived(Vmalloc(name="a", size=4 * MIB, huge=True), walk("a", 1024, store=True))
    at, chunk = addresses(one)
    kernel = start(TABLE, "x86-64")
    kernel.apply(Vmalloc(name="a", size=4 * MIB, huge=True))
    area = kernel.areas["a"]
    assert at.tolist() == [area.start + 8 * i for i in range(1024)]
    assert one.mapping.leaf_shift.tolist() == [21, 21]
    assert one.mapping.frame.tolist() == area.frames[:2].tolist()
    assert (chunk.flags & STORE).all()
    assert not (chunk.flags & FETCH).any()
    assert one.trace.cpus == 2


def test_a_region_has_what_rounding_added_to_its_area():
    """4 MiB and 64 bytes are 1025 base pages; as PMD leaves they take 6 MiB."""
    one = lived(Vmalloc(name="a", size=(4 * MIB) + 64, huge=True), walk("a", 8))
    region = one.mapping.regions[one.mapping.region[0]]
    assert region.waste_bytes == one.mapping.memory["rounding_waste"] == 6 * MIB - 1025 * 4096
    small = lived(Vmalloc(name="a", size=(4 * MIB) + 64), walk("a", 8))
    assert not any(region.waste_bytes for region in small.mapping.regions)


def test_notes_say_what_a_kernels_name_does_not():
    step = (Vmalloc(name="a", size=4096), walk("a", 8))
    named = msgspec.structs.replace(TABLE, parameters=["nohugevmalloc"], reset="range", huge_since="v8")
    assert lived(*step, table=named).mapping.notes == (
        "k is Linux 6.12 with nohugevmalloc, the direct map reset by range",
        "x86-64 is taken to have huge vmalloc since v8",
        "Kernels are modelled, not recorded; page tables and rounding waste are the highest of their lives.",
    )
    plain = msgspec.structs.replace(TABLE, name="6.12")
    assert len(lived(*step, table=plain).mapping.notes) == 1


def test_the_direct_map_of_an_area_is_its_frames():
    one = lived(Vmalloc(name="a", size=64 << 10), walk("a", 4096, direct=True))
    at, _ = addresses(one)
    kernel = start(TABLE, "x86-64")
    kernel.apply(Vmalloc(name="a", size=64 << 10))
    frames = kernel.areas["a"].frames[: 4096 * 8 >> 12]
    expected = [kernel.maps.direct.address(int(frame)) for frame in frames]
    assert at[::512].tolist() == expected


def test_a_split_changes_the_leaf_of_an_address_from_then_on():
    """Two distinct pages of the trace have one address: before its 2 MiB leaf was split, and after."""
    touch = Access(rounds=1, touch=[Touch(what="a", pattern="same", direct=True)])
    one = lived(Vmalloc(name="a", size=4096), touch, SetMemory(name="a", what="ro"), touch)
    assert len(set(one.trace.pages.tolist())) == 1
    _, chunk = addresses(one)
    assert one.mapping.leaf_shift[chunk.page].tolist() == [21, 12]
    assert len(set(one.mapping.frame.tolist())) == 1
    (split, change) = one.trace.events
    assert (split["kind"], change["kind"]) == (FLUSH_ALL, FLUSH_ALL)
    assert (split["position"], change["position"]) == (1, 1), "both flushes lie between the two accesses"


def test_addresses_that_another_area_takes_over():
    same = {"size": 4 * MIB, "huge": True}
    steps = [
        *(Vmalloc(name="a", **same), walk("a", 8), Vfree(name="a"), UnmapAliases()),
        *(Vmalloc(name="b", size=MIB), walk("b", 8)),
    ]
    one = lived(*steps)
    at, chunk = addresses(one)
    assert one.mapping.leaf_shift[chunk.page].tolist() == [21] * 8 + [12] * 8
    names = [one.mapping.regions[r].name for r in one.mapping.region[chunk.page]]
    assert names[0].split()[1] == hex(at[0])
    assert names[-1].split()[1] == hex(at[8])


def test_misses_and_flushes_counted_by_hand():
    """4 MiB read, a flush, and read again, on a textbook machine: a miss for each leaf (2 or 1024)."""
    page = Access(rounds=1024 * 512, touch=[Touch(what="a", pattern="sequential")])
    steps = [
        *(Vmalloc(name="a", size=4 * MIB, huge=True), Vmalloc(name="b", size=64 << 10)),
        *(page, Vfree(name="b"), UnmapAliases(), page),
    ]
    machine = load("textbook-setassoc")
    for parameters, leaves in (([], 2), (["nohugevmalloc"], 1024)):
        table = msgspec.structs.replace(TABLE, parameters=parameters)
        one = lived(*steps, table=table)
        assert [(e["position"], e["end"] - e["start"]) for e in one.trace.events] == [(1024 * 512, 17 << 12)]
        found = replay(one.trace, one.mapping, machine)
        assert found.counts["accesses"] == 2 * 1024 * 512
        # b's 17 pages alone are flushed (a range of 33 at most): a's entries stay, as far as they fit 1536.
        assert found.counts["stlb_misses"] == leaves
    whole = [replace_flush(step) for step in steps]
    one = lived(*whole)
    assert replay(one.trace, one.mapping, machine).counts["stlb_misses"] == 2 * 2


def replace_flush(step):
    """Free an area of 40 pages instead of 16: 41 are more than the 33 that are flushed one by one."""
    return msgspec.structs.replace(step, size=40 << 12) if getattr(step, "size", 0) == 64 << 10 else step


def test_flushes_cost_cycles_on_every_cpu():
    machine = load("intel-skylake-sp")
    for cpus in (1, 4):
        table = msgspec.structs.replace(TABLE, cpus=cpus)
        touch = walk("a", 8)
        one = lived(Vmalloc(name="a", size=4096), touch, SetMemory(name="a", what="ro"), touch, table=table)
        found = replay(one.trace, one.mapping, machine)
        assert one.life.counts["flush-all"][-1] == found.counts["flushes"] == 2
        assert found.cycles["flush"] == 2 * cpus * machine.flush.full_cycles
        assert found.cycles["exposed"] >= found.cycles["flush"]


def test_every_flush_of_the_kernel_is_in_the_trace_and_every_sample_in_order():
    scenario = read("modules")
    one = play("modules", scenario.kernel[1], "x86-64", scenario.event, "modules.toml")
    life = one.life
    assert len(one.trace.events) == life.counts["flush-all"][-1] + life.counts["flush-range"][-1]
    assert life.accesses[-1] == one.trace.accesses
    for series in (life.accesses, *life.counts.values()):
        assert (np.diff(series) >= 0).all()
        assert len(series) == len(life.events)
    total = {sum(line) for line in zip(*life.direct_map_kb.values(), strict=True)}
    assert total == {4 * GIB >> 10}, "splits neither lose nor make memory"


def test_modules_are_fetched_from_their_text():
    from pagewalk.linux.executable.modules import LoadModule, Modules

    module = LoadModule(name="m", text=8192, rodata=4096, data=4096)
    for version in ("5.17", "6.12", "7.3"):
        table = msgspec.structs.replace(TABLE, release=version)
        one = lived(Booted(), module, walk("m", 1024, fetch=True), table=table)
        kernel = start(table, "x86-64")
        kernel.apply(Booted())
        kernel.apply(module)
        section = next(s for s in kernel.part(Modules).loaded["m"] if s.kind == "text")
        at, chunk = addresses(one)
        assert (chunk.flags & FETCH).all()
        if section.area in kernel.areas:
            assert at[0] == kernel.areas[section.area].start + (section.first_page << 12)
        assert (np.diff(at) == 8).all()
        assert one.mapping.leaf_shift[chunk.page[0]] == (21 if version == "7.3" else 12)


def test_programs_lie_in_their_pack():
    from pagewalk.linux.executable.bpf import LoadBpf

    loads = [LoadBpf(name=f"p{n}", size=1000) for n in range(3)]
    steps = [Booted(), *loads, *(walk(f"p{n}", 4) for n in range(3))]
    packed, _ = addresses(lived(*steps))
    assert (packed[4::4] - packed[:-4:4]).tolist() == [1024, 1024], "16 chunks of 64 bytes each"
    alone, _ = addresses(lived(*steps, table=msgspec.structs.replace(TABLE, release="5.17")))
    assert (alone[4::4] - alone[:-4:4]).tolist() == [8192, 8192], "a page and its guard each"


def test_pages_are_taken_and_given_back():
    kernel = start(TABLE, "x86-64")
    free = kernel.memory.free_frames()
    kernel.apply(TakePages(name="heap", size=MIB, order=3))
    frames = kernel.part(Pages).blocks["heap"].frames
    assert len(np.unique(frames)) == 256
    assert (frames.reshape(-1, 8) == frames[::8, None] + np.arange(8)).all()
    assert kernel.memory.free_frames() == free - 256
    kernel.apply(HoldMemory(leave_pages=5))
    assert kernel.memory.free_frames() == 5
    kernel.apply(FreeMemory())
    kernel.apply(FreePages(name="heap"))
    assert kernel.memory.free_frames() == free
    assert kernel.memory.buddyinfo() == start(TABLE, "x86-64").memory.buddyinfo(), "all merged again"


@pytest.mark.parametrize("arch", ["x86-64", "arm64-16k", "arm64-64k", "powerpc64-radix-64k", "riscv-sv48"])
def test_memory_is_all_there_on_every_architecture(arch):
    table = KernelTable(name="k", release="6.18", nodes=[4 * GIB, 2 * GIB])
    kernel = start(table, arch)
    assert kernel.memory.free_frames() * kernel.page_bytes == 6 * GIB
    assert sum(kernel.maps.direct.meminfo().values()) << 10 == 6 * GIB
    assert kernel.memory.nodes == [0, 1]


def test_a_result_has_lives_and_flushes_and_the_same_bytes_again():
    scenario = Scenario(
        schema="pagewalk.scenario/1",
        title="t",
        machines=["intel-skylake-sp"],
        kernel=[TABLE, msgspec.structs.replace(TABLE, name="l", reset="range")],
        event=[
            *(Booted(), Vmalloc(name="a", size=2 * MIB, huge=True, reset=True)),
            *(SetMemory(name="a", what="ro"), walk("a", 100), Vfree(name="a")),
        ],
    )
    machines = [load(name) for name in scenario.machines]
    one, two = (played(scenario, machines, lives_of(scenario, machines)) for _ in range(2))
    assert [life.name for life in one.kernels] == [cell.mapping for cell in one.replays] == ["k", "l"]
    assert [life.counts["split"][-1] for life in one.kernels] == [1, 0], (
        "64 MiB have no leaf of 1 GiB: only freeing page by page splits"
    )
    assert [cell.counts["flushes"] for cell in one.replays] == [
        life.counts["flush-all"][-1] for life in one.kernels
    ]
    assert one.kernels == two.kernels
    assert [r.counts for r in one.replays] == [r.counts for r in two.replays]
    assert one.provenance.trace_sha256 == two.provenance.trace_sha256 != ""


def test_the_engine_agrees_with_its_oracle_on_a_played_trace():
    """Splits, reused addresses and flushes make traces that no recording has; the plain simulation agrees."""
    scenario = read("modules")
    steps = [msgspec.structs.replace(s, times=3) if hasattr(s, "times") else s for s in scenario.event]
    steps = [msgspec.structs.replace(s, events=[_shorter(e) for e in s.events]) if hasattr(s, "times") else s
             for s in steps]  # fmt: skip
    one = play("modules", scenario.kernel[2], "x86-64", steps, "modules.toml")
    machine = load("textbook-setassoc")
    (chunk,) = one.trace.chunks("flags")
    kinds = [-1 if f & FETCH else 1 if f & STORE else 0 for f in chunk.flags.tolist()]
    oracle = simulate(
        machine, one.trace.pages.tolist(), one.mapping, chunk.page.tolist(), kinds, events=one.trace.events
    )
    found = replay(one.trace, one.mapping, machine).counts
    assert found["flushes"] > 20
    for key in ("accesses", "l1_dtlb_misses", "stlb_misses", "walk_refs"):
        assert found[key] == oracle["counts"][key], key


def _shorter(event):
    return msgspec.structs.replace(event, rounds=200) if hasattr(event, "rounds") else event


def test_permission_changes_cost_their_flushes_and_the_refills_by_hand():
    """48 pages read twice, and between, another area's first page is made read-only or nothing happens.

    Reference 4.2: that page's alias is a part of a 2 MiB leaf of the direct map (64 MiB have none that is
    larger), so the leaf is split: a full flush; the change of a vmalloc area itself ends with another. A
    full flush drops paging-structure caches too: 4 reads of 100 cycles for the first page, 1 for each other.
    """
    pages, cpus, full = 48, 2, 1000
    read_once = Access(rounds=pages * 512, touch=[Touch(what="heap", pattern="sequential")])
    born = [Booted(), Vmalloc(name="heap", size=pages << 12), Vmalloc(name="other", size=2 * MIB)]
    change = SetMemory(name="other", what="ro", first_page=0, pages=1)
    priced = Flush(full_cycles=full, page_cycles=100, ceiling_pages=33)
    machine = msgspec.structs.replace(load("textbook-setassoc"), flush=priced)
    found = []
    for between in ([], [change]):
        one = lived(*born, read_once, *between, read_once)
        found.append((replay(one.trace, one.mapping, machine), one.life.counts))
    (without, quiet), (changed, life) = found
    assert (quiet["flush-all"][-1], life["flush-all"][-1], life["split"][-1]) == (0, 2, 1)
    assert (without.counts["walks"], changed.counts["walks"]) == (pages, 2 * pages)
    assert (without.cycles["flush"], changed.cycles["flush"]) == (0, 2 * cpus * full)
    refills = (4 + pages - 1) * 100
    assert (without.cycles["walk"], changed.cycles["walk"]) == (refills, 2 * refills)
    assert changed.cycles["exposed"] - without.cycles["exposed"] == 2 * cpus * full + refills
