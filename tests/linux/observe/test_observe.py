"""/proc/vmallocinfo and vmalloc trace events: real samples, and the page tables of real boots."""

import json
from collections import Counter

import numpy as np
import pytest

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GEOMETRIES, geometry
from pagewalk.linux.layout import read_layout
from pagewalk.linux.mapping import map_trace
from pagewalk.linux.observe.events import Alloc, Free, Purge, read_events
from pagewalk.linux.observe.events import to_layout as layout_of_events
from pagewalk.linux.observe.layouts import read_observed_layout
from pagewalk.linux.observe.vmallocinfo import is_huge, read_vmallocinfo, to_layout
from pagewalk.linux.observe.which import geometry_of
from pagewalk.linux.rules.releases import release
from places import OUTSIDE, TEST_DATA

DATA = TEST_DATA / "kernel"
SAMPLE = DATA / "vmallocinfo-6.18-x86_64-hashed.txt"
EVENTS = DATA / "perf-script-vmalloc-events-6.18.txt"
TRACES = OUTSIDE / "traces"
X86 = geometry("x86-64")
MIB = 1 << 20


def saved(folder, text):
    path = folder / "file"
    path.write_text(text)
    return path


# -- /proc/vmallocinfo


def test_every_line_of_the_sample():
    info = read_vmallocinfo(SAMPLE)
    assert info.addresses == "hashed"
    assert len(info.rows) == 389
    assert Counter(row.kind for row in info.rows) == {
        "vmalloc": 233,
        "unpurged": 125,
        "ioremap": 29,
        "vmap": 2,
    }
    assert sum(row.vpages for row in info.rows) == 4
    # end of one line equal to start of another proves adjacency: 59 lines, says the reference
    starts = {row.start for row in info.rows}
    assert sum(row.end in starts for row in info.rows) == 59


def test_fields_of_a_line():
    rows = read_vmallocinfo(SAMPLE).rows
    assert (rows[0].caller, rows[0].kind, rows[0].size_bytes) == ("irq_init_percpu_irqstack", "vmap", 20480)
    assert (rows[1].physical, rows[1].kind) == (0xA0000, "ioremap")
    assert (rows[3].pages, rows[3].nodes) == (4, ((0, 4),))
    assert {row.module for row in rows} >= {""}


def test_modules_and_several_nodes(tmp_path):
    words = "f.cold+0x1/0x2 [nf_conntrack] pages=4 vmalloc user N0=3 N1=1"
    line = f"0xffffc90000000000-0xffffc90000005000   20480 {words}"
    (row,) = read_vmallocinfo(saved(tmp_path, line)).rows
    assert (row.caller, row.module, row.kind, row.nodes) == (
        "f.cold",
        "nf_conntrack",
        "vmalloc",
        ((0, 3), (1, 1)),
    )


def test_the_true_huge_area_of_the_sample():
    """Reference 7.1: futex_hash_allocate is huge, the percpu chunk of 2 MiB is not; 4.6: the pack may be."""
    info = read_vmallocinfo(SAMPLE)
    huge = {
        verdict: {row.caller for row in info.rows if is_huge(row, "hashed", X86, release("6.18")) is verdict}
        for verdict in (True, None)
    }
    assert huge == {True: {"futex_hash_allocate"}, None: {"bpf_prog_pack_alloc"}}
    whole_pmds = [r for r in info.rows if r.size_bytes > 2 * MIB and (r.size_bytes - 4096) % (2 * MIB) == 0]
    assert {row.caller for row in whole_pmds} >= {"pcpu_create_chunk", "bpf_prog_pack_alloc"}


def test_a_huge_area_is_aligned(tmp_path):
    """A boot hash table of exactly 2 MiB on two nodes of 6.1 has base pages, as its address shows."""
    words = "2101248 alloc_large_system_hash+0x1/0x2 pages=512 vmalloc N0=256 N1=256\n"
    text = (
        f"0xffffc90006401000-0xffffc90006602000 {words}0xffffc90006800000-0xffffc90006a01000 {words}"
        f"0x0000000012345678-0x0000000087654321 {words}"
    )
    lines = text.splitlines(keepends=True)
    real = to_layout(read_vmallocinfo(saved(tmp_path, "".join(lines[:2]))), X86, release("6.1"))
    assert [area.leaf for area in real.areas] == ["base", "PMD"]
    hashed = read_vmallocinfo(saved(tmp_path, lines[2]))
    assert is_huge(hashed.rows[0], hashed.addresses, X86, release("6.1")) is True


def test_hashed_addresses_cannot_be_placed():
    with pytest.raises(BadInput, match=r"hashed.*kptr_restrict=1"):
        to_layout(read_vmallocinfo(SAMPLE), X86, release("6.18"))


def test_zero_addresses(tmp_path):
    info = read_vmallocinfo(
        saved(tmp_path, "0x0000000000000000-0x0000000000000000    8192 f+0x1/0x2 vmalloc\n")
    )
    assert info.addresses == "zero"
    with pytest.raises(BadInput, match="zero"):
        to_layout(info, X86, release("6.18"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "0xffffc90000000000-0xffffc90000005000   x f+0x1/0x2 vmalloc\n",
        "0xffffc90000000000-0xffffc90000005000   0 f+0x1/0x2 vmalloc\n",
        "0xffffc90000000000-0xffffc90000005000 99999999999999999999 f+0x1/0x2\n",
        "0xffffc90000000000-0xffffc90000005000   20480 f+0x1/0x2 pages=many vmalloc\n",
        "0xffffc90000000000-0xffffc90000005000   20480 f+0x1/0x2 phys=0xg ioremap\n",
        "0xffffc90000000000-0xffffc90000005000   20480 f+0x1/0x2 vmalloc N0=\n",
        "0xffffc90000000000-0xffffc90000005000 20480 vmap\n0x000000006ff909ba-0x00000000d6dcdea2 4096 vmap\n",
        "0xffffc90000000000\0",
        "0" * 70_000,
    ],
)
def test_bad_vmallocinfo(tmp_path, text):
    with pytest.raises(BadInput) as caught:
        read_vmallocinfo(saved(tmp_path, text))
    assert str(tmp_path) in str(caught.value)


def vmallocinfo_text(regions):
    """The lines from which the recorder made regions.json, as Linux 6.1 prints them."""
    lines = []
    for r in regions:
        words = [r["caller"]]
        words += [f"[{r['module']}]"] if r["module"] else []
        words += [f"pages={r['pages']}"] if r["pages"] else []
        words += [r["kind"]] if r["kind"] else []
        words += [f"{node}={pages}" for node, pages in r["nodes"].items()]
        start, end = int(r["start"], 16), int(r["end"], 16)
        lines.append(f"0x{start:016x}-0x{end:016x} {r['bytes']:7d} {' '.join(words)}\n")
    return "".join(lines)


@pytest.mark.parametrize("name", ["gitdiff-small", "fdtable", "bpfhash"])
def test_inferred_leaves_against_the_page_tables_of_real_boots(tmp_path, name):
    """Linux 6.1, two nodes: what size, alignment and caller tell is what the page tables say."""
    folder = TRACES / name
    if not folder.is_dir():
        pytest.skip("the real traces are not beside this checkout")
    text = vmallocinfo_text(json.loads((folder / "regions.json").read_text()))
    inferred = to_layout(read_vmallocinfo(saved(tmp_path, text)), X86, release("6.1"))
    recorded = read_layout(folder)
    assert len(inferred.areas) == len(recorded.areas)
    for ours, theirs in zip(inferred.areas, recorded.areas, strict=True):
        assert (ours.start, ours.end, ours.size_bytes) == (theirs.start, theirs.end, theirs.size_bytes)
        assert (ours.kind, ours.leaf, ours.is_stack) == (theirs.kind, theirs.leaf, theirs.is_stack), hex(
            ours.start
        )
    # a replay over it has the same leaves in the vmalloc space, and says that they are inferred
    pages = np.load(folder / "pages.npy")
    in_space = (pages >= X86.vmalloc_start >> 12) & (pages < X86.vmalloc_end >> 12)
    for mapping in ("recorded", "pmd", "base"):
        ours, theirs = map_trace(pages, inferred, mapping), map_trace(pages, recorded, mapping)
        np.testing.assert_array_equal(ours.leaf_shift[in_space], theirs.leaf_shift[in_space])
        np.testing.assert_array_equal(ours.page, theirs.page)
        assert "inferred" in ours.notes[0]


# -- trace events


def test_events_of_the_sample():
    """Reference 7.2 and the live facts: 10 huge allocations, none fell back; two purges, threshold 64 MiB."""
    events = read_events(EVENTS)
    allocs = [e for e in events if isinstance(e, Alloc)]
    assert Counter(type(e) for e in events) == {Alloc: 139, Free: 80, Purge: 2}
    huge = [e for e in allocs if e.align_bytes == 2 * MIB]
    assert len(huge) == 10
    assert {e.size_bytes - 4096 for e in huge} == {6 * MIB, 10 * MIB, 18 * MIB, 34 * MIB}
    assert not any(e.failed for e in allocs)
    cpus = 2
    assert {e.lazy_max_pages for e in events if isinstance(e, Free)} == {cpus.bit_length() * 32 * MIB // 4096}
    first, second = (e for e in events if isinstance(e, Purge))
    assert (first.areas, round((first.end - first.start) / MIB)) == (784, 179)
    assert (second.areas, second.time) == (44, 1831.469499)
    assert (allocs[0].start, allocs[0].size_bytes) == (18446683600673669120, 20480)


def test_layout_of_the_sample_events():
    layout = layout_of_events(read_events(EVENTS), X86, "sample")
    text = EVENTS.read_text().splitlines()
    alive = {}
    for line in text:  # the same by hand: what was allocated and not freed
        words = line.replace("=", " ").split()
        if "alloc_vmap_area:" in line:
            alive[int(words[words.index("va_start:") + 1])] = int(words[words.index("size") + 1])
        elif "free_vmap_area_noflush" in line:
            alive.pop(int(words[words.index("va_start") + 1], 16), None)
    assert {area.start: area.size_bytes for area in layout.areas} == alive
    assert {area.leaf for area in layout.areas if area.size_bytes > 6 * MIB} <= {"PMD"}
    assert any(area.is_stack for area in layout.areas)
    pages = np.array([area.start >> 12 for area in layout.areas], np.uint64)
    mapping = map_trace(pages, layout, "recorded")
    shift = {"PMD": 21, "base": 12}
    assert mapping.leaf_shift.tolist() == [shift[area.leaf] for area in layout.areas]


ALLOC = "bash-1 [000] d..1. 10.000001: alloc_vmap_area: va_start: {} size={} align={} vstart=0x0 failed={}\n"


def test_trace_cmd_lines_fallbacks_and_lost_frees(tmp_path):
    start = 0xFFFFC90000200000
    text = (
        "some other event 9.1: sched_switch: prev\n"
        + ALLOC.format(0, 3 * MIB, 2 * MIB, 1)
        + ALLOC.format(start, MIB, 1, 0)
        + ALLOC.format(start + MIB // 2, MIB, 1, 0)
        + ALLOC.format(start + 8 * MIB, 2 * MIB + 4096, 2 * MIB, 0)
    )
    layout = layout_of_events(read_events(saved(tmp_path, text)), X86, "test")
    assert [(area.start, area.leaf) for area in layout.areas] == [
        (start + MIB // 2, "base"),
        (start + 8 * MIB, "PMD"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing of ours\n",
        "1.0: alloc_vmap_area: va_start: 1 size=2 align=3\n",
        "1.0: alloc_vmap_area: va_start: 0x1ffffffffffffffff size=1 align=1 failed=0\n",
        "1.0: free_vmap_area_noflush: va_start=0xg nr_lazy=1 nr_lazy_max=2\n",
        "1.0: purge_vmap_area_lazy: start=0x0 end=0x1 num_purged=99999999999999999999\n",
    ],
)
def test_bad_events(tmp_path, text):
    with pytest.raises(BadInput):
        read_events(saved(tmp_path, text))


def test_events_that_leave_nothing(tmp_path):
    text = ALLOC.format(0, 3 * MIB, 2 * MIB, 1)
    with pytest.raises(BadInput, match="alive"):
        layout_of_events(read_events(saved(tmp_path, text)), X86, "test")


# -- any of them


def test_a_layout_from_any_file():
    of_events = read_observed_layout(EVENTS, None)
    assert of_events.areas == layout_of_events(read_events(EVENTS), X86, "sample").areas
    of_tables = read_observed_layout(DATA / "page_tables-x86.txt", None)
    assert (len(of_tables.areas), len(of_tables.runs)) == (0, 12)


def test_a_layout_from_vmallocinfo(tmp_path):
    line = "0xffffc90000000000-0xffffc90000005000   20480 f+0x1/0x2 pages=4 vmalloc N0=4\n"
    assert len(read_observed_layout(saved(tmp_path, line), release("6.18")).areas) == 1
    with pytest.raises(BadInput, match="hashed"):
        read_observed_layout(SAMPLE, release("6.18"))


def test_a_vmallocinfo_needs_the_release(tmp_path):
    line = "0xffffc90000000000-0xffffc90000005000   20480 f+0x1/0x2 pages=4 vmalloc N0=4\n"
    with pytest.raises(BadInput, match="--kernel"):
        read_observed_layout(saved(tmp_path, line), None)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_addresses_tell_the_page_tables(tmp_path, name):
    """Areas at the start of vmalloc, as that kernel would place them: a page, its guard, and a leaf."""
    is_, page = GEOMETRIES[name], 1 << GEOMETRIES[name].base_shift
    text = ""
    for start, size in ((is_.vmalloc_start, 2 * page), (is_.vmalloc_start + 2 * page, 3 * page)):
        text += f"0x{start:016x}-0x{start + size:016x} {size:7d} f+0x1/0x2 pages=1 vmalloc\n"
    found = geometry_of(saved(tmp_path, text))
    assert (found.vmalloc_start, found.base_shift) == (is_.vmalloc_start, is_.base_shift)
    assert found.leaves == is_.leaves


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (EVENTS, "x86-64"),
        (SAMPLE, "x86-64"),
        (DATA / "page_tables-x86.txt", "x86-64"),
        (DATA / "page_tables-arm64.txt", "arm64-4k"),
        (DATA / "page_tables-powerpc64.txt", "powerpc64-radix-64k"),
        (DATA / "meminfo-6.18-x86_64.txt", "x86-64"),
    ],
)
def test_whose_page_tables_the_samples_are_of(file, name):
    assert geometry_of(file).name == name


def test_events_of_another_architecture(tmp_path):
    """trace-cmd pads the name of an event."""
    start, size = GEOMETRIES["powerpc64-radix-64k"].vmalloc_start, 128 << 10
    line = f"a-1 [000] 10.01: alloc_vmap_area:      va_start: {start} size={size} align=1 vstart=0 failed=0\n"
    layout = read_observed_layout(saved(tmp_path, line), None)
    assert (layout.geometry.name, layout.areas[0].size_bytes) == ("powerpc64-radix-64k", size)


def test_a_randomised_base_stays_x86(tmp_path):
    """KASLR moves the base by whole GiB, and percpu chunks lie at the end of the space (reference 3.5)."""
    text = "".join(
        f"0x{start:016x}-0x{start + 8192:016x}    8192 f+0x1/0x2 pages=1 vmalloc\n"
        for start in (0xFFFF_D123_4000_0000, 0xFFFF_F122_FFC0_0000, 0xFFFF_FFFF_C000_0000)
    )
    assert geometry_of(saved(tmp_path, text)).name == "x86-64"


def test_a_file_that_is_no_layout():
    with pytest.raises(BadInput, match="neither"):
        read_observed_layout(DATA / "meminfo-6.18-x86_64.txt", None)
