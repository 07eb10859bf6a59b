"""Random lives of kernels of every release and architecture: whatever happens, the books are right.

Areas of all kinds, pages, modules, BPF programs, permissions; on fresh, fragmented and nearly full memory.
What must hold after every event is `kernels_in_memory.check`.
"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_in_memory import GIB, check, kernel, table_pages
from pagewalk.errors import BadInput
from pagewalk.linux.boot import orders
from pagewalk.linux.executable import (
    AddKprobes,
    InitDone,
    LoadBpf,
    LoadModule,
    RemoveKprobes,
    UnloadBpf,
    UnloadModule,
)
from pagewalk.linux.executable.bpf import Programs
from pagewalk.linux.executable.modules import Modules
from pagewalk.linux.executable.probes import Probes
from pagewalk.linux.geometry import MIB
from pagewalk.linux.mappers.ioremap import Ioremap, Iounmap
from pagewalk.linux.mappers.kvmalloc import Kvfree, Kvmalloc
from pagewalk.linux.mappers.vmap import Vmap, Vunmap
from pagewalk.linux.memory.conditions import age, fresh
from pagewalk.linux.memory.kernel import SetMemory, UnmapAliases, Vfree, Vmalloc, Vrealloc
from pagewalk.linux.memory.pages import FreePages, Pages, TakePages
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import BOUNDARIES

KIB = 1 << 10
NAMES = st.sampled_from("abcdefgh")
SIZES = st.one_of(
    st.integers(1, 3 * MIB),
    st.sampled_from([64 * KIB, 2 * MIB, 2 * MIB + 64, 4 * MIB, 4 * MIB + 64, 9 * MIB]),
)
SECTION = st.integers(0, 200 * KIB)
EVENTS = st.one_of(
    st.builds(
        Vmalloc,
        name=NAMES,
        size=SIZES,
        huge=st.booleans(),
        no_huge=st.booleans(),
        reset=st.booleans(),
        align=st.sampled_from([1, 16 * KIB]),
        cpu=st.integers(0, 1),
        modules=st.booleans(),
    ),
    st.builds(Vfree, name=NAMES),
    st.builds(Vrealloc, name=NAMES, size=SIZES),
    st.builds(Kvmalloc, name=NAMES, size=SIZES, may_block=st.booleans()),
    st.builds(Kvfree, name=NAMES),
    st.builds(
        TakePages, name=NAMES, size=st.integers(1, MIB), order=st.integers(0, 3), movable=st.booleans()
    ),
    st.builds(FreePages, name=NAMES),
    st.builds(Vmap, name=NAMES, pages=NAMES, first_page=st.integers(0, 3)),
    st.builds(Vunmap, name=NAMES),
    st.builds(Ioremap, name=NAMES, physical=st.integers(16 * GIB, 17 * GIB), size=SIZES),
    st.builds(
        Ioremap,
        name=NAMES,
        physical=st.sampled_from([16 * GIB, 16 * GIB + 2 * MIB, 16 * GIB + 32 * MIB]),
        size=st.sampled_from([64 * KIB, 2 * MIB, 32 * MIB + 64 * KIB, GIB]),
    ),
    st.builds(Iounmap, name=NAMES),
    st.builds(
        SetMemory,
        name=NAMES,
        what=st.sampled_from(["ro", "rw", "x", "nx", "rox"]),
        first_page=st.integers(0, 600),
        pages=st.one_of(st.none(), st.integers(0, 1200)),
        array=st.booleans(),
    ),
    st.builds(
        LoadModule, name=NAMES, text=st.integers(1, 3 * MIB), rodata=SECTION, data=SECTION, init_text=SECTION
    ),
    st.builds(InitDone, name=NAMES),
    st.builds(UnloadModule, name=NAMES),
    st.builds(LoadBpf, name=NAMES, size=st.integers(1, 200 * KIB), images=st.integers(1, 3)),
    st.builds(UnloadBpf, name=NAMES),
    st.builds(AddKprobes, name=NAMES, count=st.integers(1, 300)),
    st.builds(RemoveKprobes, name=NAMES),
    st.builds(UnmapAliases),
)
MISTAKES = (
    *("already", "no such area", "not loaded", "not set", "it has", "was made by"),
    *("none of that name", "no pages", "there are", "are mapped by vmap", "is free", "no memory"),
)
"""What a life may be told: names that are taken, or that nobody has; memory that is short."""


@pytest.mark.parametrize(
    "arch", ["x86-64", "arm64-4k", "arm64-64k", "powerpc64-radix-4k", "powerpc64-radix-64k", "riscv-sv48"]
)
@settings(max_examples=30, deadline=None)
@given(
    st.lists(EVENTS, max_size=30),
    st.sampled_from(BOUNDARIES),
    st.sampled_from(["page", "block", "range"]),
    st.sampled_from(["fresh", "aged", "nearly full"]),
    st.integers(0, 40),
)
def test_any_life_keeps_its_books(arch, events, version, reset, condition, spare):
    cut = orders(arch)
    size = 64 * MIB << max(0, cut.page_shift - 12)
    ranges = {0: [(4 * GIB, 4 * GIB + size)]}
    memory = fresh(ranges, cut)
    held = age(memory, unusable=0.5, free=0.5, seed=1) if condition == "aged" and cut.page_shift == 12 else []
    hook = replace(hooks(arch), huge_since="v8")
    linux = kernel(version, hook, ranges, memory=memory, reset=reset)
    if condition == "nearly full":
        while memory.free_frames() > spare * 64:
            held.append(memory.take(0))
    others = memory.held_frames()
    for event in events:
        try:
            linux.apply(event)
        except BadInput as wrong:
            assert any(word in str(wrong) for word in MISTAKES), wrong
        check(linux, others)
    empty(linux)
    check(linux, others)
    assert linux.areas == {}
    linux.maps.space.purge(decay_all=True)
    assert linux.maps.space.used() == []
    memory.give(held)
    pages = {page for tables in (linux.maps.tables, linux.maps.direct.tables) for page in table_pages(tables)}
    assert memory.held_frames() == len(pages), "all that is still taken are tables"


def empty(linux):
    """Free everything, as its owners do."""
    for kind, unload in ((Modules, UnloadModule), (Programs, UnloadBpf)):
        for name in list(linux.part(kind).loaded):
            linux.apply(unload(name=name))
    for name in {name for slots in linux.part(Probes).pages.values() for name in slots}:
        linux.apply(RemoveKprobes(name=name))
    how = {"vmap": Vunmap, "ioremap": Iounmap, "vmalloc": Vfree}
    for name, area in list(linux.areas.items()):
        if name in linux.areas and not name.endswith(".pages"):
            linux.apply(how[area.kind](name=name))
    for name in list(linux.part(Pages).blocks):
        linux.apply(FreePages(name=name))
