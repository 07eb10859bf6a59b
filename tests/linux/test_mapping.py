"""The named mappings against a plain-Python reading of the contract (docs/mappings.md)."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.layout import LEAF_RUN, Area, Layout, check_areas, check_runs, no_runs, read_layout
from pagewalk.linux.mapping import map_trace
from places import OUTSIDE

X86 = GEOMETRIES["x86-64"]
VMALLOC, VMALLOC_END = 0xFFFFC90000000000, 0xFFFFE90000000000
PMD = 1 << 21
TRACES = OUTSIDE / "traces"
FOLDERS = ["gitdiff", "gitdiff-small", "fdtable", "bpfhash"]


def up(number, unit=PMD):
    return (number + unit - 1) // unit * unit


def plain_mapping(addresses, areas, tables, name):
    """Page address -> (address under the mapping, leaf shift): the contract's sentences, one by one.

    `areas` are dicts as in regions.json; `tables` are the leaf tables, first come first served.
    """

    def recorded(address):
        for table in tables:
            for va, count, shift in table:
                if va <= address < va + (count << shift):
                    return shift
        return 12

    def eligible(area):
        return (
            area["kind"] == "vmalloc"
            and VMALLOC <= area["start"] < VMALLOC_END
            and not area["is_stack"]
            and not area["caller"].startswith("pcpu_")
            and area["bytes"] - 4096 >= PMD
        )

    chosen = [area for area in areas if eligible(area)]
    to = {}
    if name == "pmd" and chosen:
        place = up(max(area["end"] for area in chosen))
        for area in sorted(chosen, key=lambda area: area["start"]):
            if area["mapping"] != "2M":
                to[area["start"]] = place
                place += up(area["bytes"] - 4096) + PMD

    def holder(address):
        hits = [area for area in areas if area["start"] <= address < area["end"]]
        return min(hits, key=lambda area: not area["at_begin"], default=None)

    result = {}
    for address in addresses:
        area = holder(address)
        if name == "base" and VMALLOC <= address < VMALLOC_END:
            result[address] = address, 12
        elif name == "pmd" and area is not None and eligible(area):
            result[address] = to.get(area["start"], area["start"]) + address - area["start"], 21
        else:
            result[address] = address, recorded(address)
    return result


def plain_table_bytes(ranges):
    """Walk every leaf of (start, end, leaf shift) ranges and collect the tables above it, root excluded."""
    tables = set()
    for start, end, shift in ranges:
        for address in range(start >> shift << shift, end, 1 << shift):
            tables |= {(level, address >> level) for level in (21, 30, 39) if level > shift}
    return 4096 * len(tables)


def plain_memory(mapped, areas, name):
    """Page-table and waste bytes of `plain_mapping`'s result."""
    first = {area["start"]: plain_mapping([area["start"]], areas, [], name)[area["start"]] for area in areas}
    ranges, waste, in_full = [], 0, []
    for area in areas:
        if area["kind"] is None:
            continue
        payload = area["bytes"] - 4096
        start, shift = first[area["start"]]
        if name != "base" and area["mapping"] == "2M":
            shift = 21
        if shift == 21:
            waste += up(payload) - payload
            payload = up(payload)
        ranges.append((start, start + payload, shift))
        in_full.append((area["start"], area["end"]))
    for recorded, (address, shift) in mapped.items():
        if not any(start <= recorded < end for start, end in in_full):
            ranges.append((address, address + 1, shift))
    return plain_table_bytes(ranges), waste


@pytest.fixture(params=FOLDERS)
def folder(request):
    path = TRACES / request.param
    if not path.is_dir():
        pytest.skip("the real traces are not beside this checkout")
    return path


@pytest.mark.parametrize("name", ["base", "pmd", "recorded"])
def test_real_traces_against_the_plain_reading(folder, name):
    pages = np.load(folder / "pages.npy")
    areas = [
        record | {"start": int(record["start"], 16), "end": int(record["end"], 16)}
        for record in json.loads((folder / "regions.json").read_text())
    ]
    tables = [np.load(folder / f)[["va", "count", "shift"]].tolist() for f in ("leaf.npy", "leaf_end.npy")]
    some = np.random.default_rng(1).choice(pages, min(len(pages), 1500), replace=False)
    plain = plain_mapping([int(page) << 12 for page in some], areas, tables, name)

    mapping = map_trace(pages, read_layout(folder), name)
    both = zip(mapping.page.tolist(), mapping.leaf_shift.tolist(), strict=True)
    ours = dict(zip(pages.tolist(), both, strict=True))
    for address, (to, shift) in plain.items():
        assert ours[address >> 12] == (to >> 12, shift)

    every = {page << 12: (to << 12, shift) for page, (to, shift) in ours.items()}
    tables_bytes, waste = plain_memory(every, areas, name)
    assert mapping.memory == {"page_tables": tables_bytes, "rounding_waste": waste}


def test_real_traces_what_is_known_of_them(folder):
    """What the shared README and the recorder's own statistics say of these traces."""
    pages, layout = np.load(folder / "pages.npy"), read_layout(folder)
    recorded, base, pmd = (map_trace(pages, layout, name) for name in ("recorded", "base", "pmd"))
    in_space = (recorded.page >= VMALLOC >> 12) & (recorded.page < VMALLOC_END >> 12)
    assert (base.leaf_shift[in_space] == 12).all()
    np.testing.assert_array_equal(base.leaf_shift[~in_space], recorded.leaf_shift[~in_space])
    assert pmd.leaf_shift.sum() >= recorded.leaf_shift.sum() >= base.leaf_shift.sum()
    known = {
        "gitdiff": ("alloc_large_system_hash", "recorded"),
        "gitdiff-small": ("alloc_large_system_hash", "recorded"),
        "fdtable": ("alloc_fdtable", "recorded"),
        "bpfhash": ("htab_map_alloc", "pmd"),
    }
    caller, first_with_pmd = known[folder.name]
    table = max((a for a in layout.areas if a.caller == caller), key=lambda area: area.size_bytes)
    number = layout.areas.index(table)
    assert recorded.regions[number].caller == caller
    mine = recorded.region == number
    assert mine.sum() > 500
    assert (base.leaf_shift[mine] == 12).all()
    assert (pmd.leaf_shift[mine] == 21).all()
    assert (recorded.leaf_shift[mine] == 21).all() == (first_with_pmd == "recorded")
    stacks = np.array([region.kind == "stack" for region in recorded.regions])[recorded.region]
    assert stacks.any()
    assert (pmd.leaf_shift[stacks] == 12).all()


def area(start, pages, *, leaf="base", caller="f", **more):
    """An area of `pages` base pages and a guard page."""
    return Area(start, start + (pages + 1) * 4096, (pages + 1) * 4096, caller, leaf=leaf, **more)


def layout_of(areas, runs=(), runs_end=()):
    def table(rows):
        return np.array([(va, pa, n, shift, 1, 0, 1) for va, pa, n, shift in rows], LEAF_RUN)

    return Layout(
        X86,
        check_areas(list(areas), X86, "test"),
        check_runs(table(runs), X86, "test") if runs else no_runs(),
        check_runs(table(runs_end), X86, "test") if runs_end else no_runs(),
    )


def one(layout, address, name, **more):
    mapping = map_trace(np.array([address >> 12], np.uint64), layout, name, **more)
    return int(mapping.page[0]) << 12, int(mapping.leaf_shift[0])


def test_pmd_moves_as_the_contract_says():
    small = area(VMALLOC, 511)  # a page short of a PMD
    first = area(VMALLOC + 0x201000, 512)
    stays = area(VMALLOC + 0x600000, 1024, leaf="PMD")
    second = area(VMALLOC + 0x2000000, 513)  # the highest eligible one, ends with its guard
    above = area(VMALLOC + 0x3000000, 4)
    layout = layout_of([second, small, first, stays, above])
    end = VMALLOC + 0x2000000 + 514 * 4096
    boundary = VMALLOC + 0x2400000
    assert end <= boundary < end + PMD

    assert one(layout, first.start + 0x5123, "pmd") == (boundary + 0x5000, 21)
    # one PMD of payload and one PMD between
    assert one(layout, second.start + 512 * 4096, "pmd") == (boundary + 2 * PMD + 512 * 4096, 21)
    assert one(layout, stays.start + 0x3FF000, "pmd") == (stays.start + 0x3FF000, 21)
    assert one(layout, small.start, "pmd") == (small.start, 12)
    assert one(layout, above.start, "pmd") == (above.start, 12)


def test_pmd_boundary_exactly_at_the_end_of_the_highest():
    """A guard page that ends on a boundary leaves that boundary free."""
    highest = area(VMALLOC + PMD + 4096, 1023)
    assert highest.end == VMALLOC + 3 * PMD + 4096
    exact = area(VMALLOC + PMD, 1023)
    assert exact.end == VMALLOC + 3 * PMD
    assert one(layout_of([exact]), exact.start, "pmd")[0] == exact.end
    assert one(layout_of([highest]), highest.start, "pmd")[0] == VMALLOC + 4 * PMD


@pytest.mark.parametrize(
    "refused",
    [
        area(VMALLOC, 600, caller="pcpu_create_chunk"),
        area(VMALLOC, 600, is_stack=True),
        area(VMALLOC, 600, kind="vmap"),
        area(VMALLOC, 600, kind="ioremap"),
        area(0xFFFFFFFFC0000000, 600, caller="bpf_prog_pack_alloc"),
        area(VMALLOC, 511),
    ],
)
def test_not_eligible(refused):
    assert one(layout_of([refused]), refused.start, "pmd") == (refused.start, 12)


def test_recorded_takes_the_beginning_then_the_end_then_base_pages():
    layout = layout_of(
        [],
        [(VMALLOC, 0x40000000, 1, 21)],
        [(VMALLOC, 0x1000, 16, 12), (VMALLOC + PMD, 0x80000000, 1, 21)],
    )
    assert one(layout, VMALLOC + 0x1000, "recorded")[1] == 21
    assert one(layout, VMALLOC + PMD, "recorded")[1] == 21
    assert one(layout, VMALLOC + 2 * PMD, "recorded")[1] == 12
    assert one(layout, VMALLOC + PMD, "base")[1] == 12


def test_base_leaves_everything_outside_the_vmalloc_space_as_recorded():
    layout = layout_of([], [(0xFFFF888000000000, 0, 3, 30), (0xFFFFE90000000000, 0x1000000, 1, 21)])
    assert one(layout, 0xFFFF888012345000, "base")[1] == 30
    assert one(layout, 0xFFFFE90000000000, "base")[1] == 21


def test_an_area_of_the_beginning_goes_before_one_that_came_later():
    early, late = area(VMALLOC, 4), area(VMALLOC + 0x2000, 1024, at_begin=False)
    layout = layout_of([early, late])
    assert one(layout, VMALLOC + 0x3000, "pmd") == (VMALLOC + 0x3000, 12)
    assert one(layout, VMALLOC + 0x5000, "pmd")[1] == 21


def test_without_a_layout():
    pages = np.array([0x7F0000000, 0x7F0000203], np.uint64)
    base, pmd = map_trace(pages, None, "base"), map_trace(pages, None, "pmd")
    assert base.leaf_shift.tolist() == [12, 12]
    assert pmd.leaf_shift.tolist() == [21, 21]
    assert base.page.tolist() == pmd.page.tolist() == pages.tolist()
    # 516 pages need two PTE tables and one each above; 2 MiB leaves need no PTE table
    assert base.memory == {"page_tables": 4 * 4096, "rounding_waste": 0}
    assert pmd.memory == {"page_tables": 2 * 4096, "rounding_waste": 2 * PMD - 0x204 * 4096}
    assert [region.name for region in pmd.regions] == ["vmalloc 0x7f0000000000"]
    with pytest.raises(BadInput, match="recorded"):
        map_trace(pages, None, "recorded")


def test_a_freed_area_takes_no_memory():
    """It waits for its purge: no kind, nothing mapped. Far away, it would need tables of its own."""
    lives = area(VMALLOC, 4)
    freed = area(VMALLOC + (1 << 32), 4, kind="", leaf="")
    pages = np.array([VMALLOC >> 12], np.uint64)
    for name in ("base", "pmd", "recorded"):
        mapping = map_trace(pages, layout_of([lives, freed]), name)
        assert mapping.memory == {"page_tables": 3 * 4096, "rounding_waste": 0}
        assert [(region.kind, region.leaf) for region in mapping.regions] == [
            ("vmalloc", "base"),
            ("freed", ""),
        ]


def test_no_pages_at_all():
    empty = np.zeros(0, np.uint64)
    assert map_trace(empty, None, "pmd").memory == {"page_tables": 0, "rounding_waste": 0}
    assert len(map_trace(empty, layout_of([area(VMALLOC, 4)]), "base").page) == 0


@pytest.mark.parametrize("name", ["huge", "", "contpte"])
@pytest.mark.parametrize("layout", [None, layout_of([])])
def test_unknown_mapping(layout, name):
    with pytest.raises(BadInput):
        map_trace(np.array([1], np.uint64), layout, name)


def test_frames():
    """Recorded frames where the leaf is as recorded; else our own, distinct and aligned."""
    runs = [(VMALLOC, 0x40000000, 1, 21), (VMALLOC + PMD, 0x100000, 600, 12)]
    layout = layout_of([area(VMALLOC + PMD, 600)], runs)
    addresses = VMALLOC + 4096 * np.arange(1112, dtype=np.uint64)
    pages = addresses >> np.uint64(12)
    recorded, base, pmd = (map_trace(pages, layout, name) for name in ("recorded", "base", "pmd"))
    assert recorded.frame.tolist() == [*range(0x40000, 0x40200), *range(0x100, 0x100 + 600)]
    assert recorded.notes == ()
    assert len(set(base.frame.tolist())) == 1112
    assert base.frame[512:].tolist() == recorded.frame[512:].tolist()
    assert (base.frame[:512] >= 1 << 40).all()  # above any physical address
    assert (np.diff(base.frame[:512]) != 1).all()
    assert "chosen" in base.notes[-1]
    moved = pmd.frame[512:]
    assert (moved % 512 == pmd.page[512:] % 512).all()
    assert len(set(pmd.frame.tolist())) == 1112
    shuffled = np.random.default_rng(3).permutation(1112)
    again = map_trace(pages[shuffled], layout, "base")
    assert again.frame.tolist() == base.frame[shuffled].tolist()


def test_frames_of_two_spaces_differ():
    pages = np.array([5, 5, 6], np.uint64)
    mapping = map_trace(pages, None, "base", spaces=np.array([1, 2, 1], np.uint16))
    assert len(set(mapping.frame.tolist())) == 3


def test_contiguity_is_the_largest_aligned_block_in_one_run():
    def plain(address, runs):
        for va, pa, count, shift in runs:
            end = va + (count << shift)
            if va <= address < end:
                order = shift
                while True:
                    size = 2 << order
                    block = address // size * size
                    if block < va or block + size > end or (pa - va) % size:
                        return order
                    order += 1
        return 12

    runs = [
        (VMALLOC, 0x40000000, 16, 12),
        (VMALLOC + 0x10000, 0x50001000, 16, 12),
        (VMALLOC + 0x20000, 0x60002000, 7, 12),
        (VMALLOC + 2 * PMD, 0x70000000 + 2 * PMD, 6, 21),
    ]
    addresses = [VMALLOC + 4096 * i for i in range(50)] + [VMALLOC + PMD * i // 2 for i in range(2, 18)]
    mapping = map_trace(np.array(addresses, np.uint64) >> np.uint64(12), layout_of([], runs), "recorded")
    assert mapping.contiguous_shift.tolist() == [plain(address, runs) for address in addresses]
    assert mapping.contiguous_shift.max() == 23


def test_regions_and_their_names():
    areas = [
        area(VMALLOC, 4, is_stack=True, caller="kernel_clone"),
        area(VMALLOC + 0x100000, 600, caller="vzalloc_caller"),
        area(VMALLOC + 0x1000000, 600, caller="pcpu_create_chunk"),
        area(VMALLOC + 0x2000000, 1, kind="ioremap"),
        area(0xFFFFFFFFC0000000, 9, caller="load_module"),
    ]
    others = {
        0xFFFF888000001000: "direct map",
        0xFFFFEA0000000000: "vmemmap",
        0xFFFFFE0000001000: "cpu_entry_area",
        0xFFFFFFFF81000000: "kernel image",
        0xFFFFFFFFC1000000: "modules",
        0xFFFFFFFFFF5FC000: "fixmap",
        0x00007FFFFFFFE000: "user",
        0xFFFFC900F0000000: "vmalloc space outside areas",
        0xFFFF800000000000: "other",
    }
    addresses = [a.start for a in areas] + list(others)
    mapping = map_trace(np.array(addresses, np.uint64) >> np.uint64(12), layout_of(areas), "pmd")
    regions = [mapping.regions[i] for i in mapping.region]
    assert [r.kind for r in regions[:5]] == ["stack", "vmalloc", "percpu", "ioremap", "modules"]
    assert [r.name for r in regions[5:]] == list(others.values())
    assert regions[1].name == f"vmalloc {VMALLOC + 0x100000:#x}"
    assert (regions[1].leaf, regions[1].size_bytes, regions[1].waste_bytes) == ("PMD", 600 * 4096, 424 * 4096)
    assert mapping.memory["rounding_waste"] == 424 * 4096


@st.composite
def layouts(draw):
    """Disjoint areas with gaps, as regions.json tells them, and page tables that agree with their mapping."""
    areas, runs = [], []
    at = VMALLOC if draw(st.booleans()) else VMALLOC_END - 64 * PMD
    for _ in range(draw(st.integers(1, 12))):
        at += 4096 * draw(st.sampled_from([0, 0, 1, 3, 400, 512, 1500]))
        pages = draw(st.sampled_from([1, 4, 31, 511, 512, 513, 600, 1024, 1025, 1537]))
        kind = draw(st.sampled_from(["vmalloc"] * 5 + ["vmap", "ioremap", None]))
        mapping = "none" if kind is None else "4K"
        if kind == "vmalloc" and pages % 512 == 0 and draw(st.booleans()):
            at, mapping = up(at), "2M"
        areas.append(
            {
                "start": at,
                "end": at + (pages + 1) * 4096,
                "bytes": (pages + 1) * 4096,
                "caller": draw(st.sampled_from(["hash", "pcpu_create_chunk", "clone"])),
                "kind": kind,
                "mapping": mapping,
                "is_stack": draw(st.sampled_from([False, False, False, True])),
                "at_begin": True,
            }
        )
        if kind is not None:
            shift = 21 if mapping == "2M" else 12
            runs.append((at, draw(st.integers(0, 1000)) * PMD, pages >> (shift - 12), shift))
        at += (pages + 1) * 4096
    return areas, runs


@settings(max_examples=60, deadline=None)
@given(layouts(), st.sampled_from(["base", "pmd", "recorded"]), st.integers(0, 2**32))
def test_random_layouts_against_the_plain_reading(drawn, name, seed):
    areas, runs = drawn
    layout = layout_of(
        [
            Area(a["start"], a["end"], a["bytes"], a["caller"], a["kind"] or "",
                 {"2M": "PMD", "4K": "base", "none": ""}[a["mapping"]], a["is_stack"])
            for a in areas
        ],
        runs,
    )  # fmt: skip
    low, high = areas[0]["start"] - 8192, areas[-1]["end"] + 8192
    addresses = np.unique(np.random.default_rng(seed).integers(low >> 12, high >> 12, 80, np.uint64))
    table = [(va, count, shift) for va, _, count, shift in runs]
    plain = plain_mapping([page << 12 for page in addresses.tolist()], areas, [table], name)
    mapping = map_trace(addresses, layout, name)
    ours = zip(mapping.page.tolist(), mapping.leaf_shift.tolist(), strict=True)
    assert [(page << 12, shift) for page, shift in ours] == list(plain.values())
    tables, waste = plain_memory(plain, areas, name)
    assert mapping.memory == {"page_tables": tables, "rounding_waste": waste}
