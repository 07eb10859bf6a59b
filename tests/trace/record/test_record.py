"""Recording a program: its memory map, the stream from valgrind, the folder; user memory under mappings."""

import json
import mmap
import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from pagewalk.cli import main
from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.layout import Area, Layout, no_runs, read_layout
from pagewalk.linux.mapping import map_trace
from pagewalk.trace.open import open_trace
from pagewalk.trace.record.memory_map import MemoryMap, Piece, areas
from pagewalk.trace.record.program import record
from places import TEST_DATA

LACKEY = TEST_DATA / "formats" / "true.lackey"
MIB2 = 1 << 21

# ---- the memory map ---------------------------------------------------------------

MAPS = """\
00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/my program
00e03000-00e24000 rw-p 00000000 00:00 0           [heap]
7f0000000000-7f0000a00000 rw-p 00000000 00:00 0
7fff00000000-7fff00001000 r-xp 00000000 00:00 0   [vdso]
"""


def test_a_memory_map_is_read():
    memory = MemoryMap()
    memory.look(MAPS)
    assert memory.pieces == [
        Piece(0x400000, 0x452000, "/usr/bin/my program", "file"),
        Piece(0xE03000, 0xE24000, "[heap]", "anonymous"),
        Piece(0x7F0000000000, 0x7F0000A00000, "", "anonymous"),
        Piece(0x7FFF00000000, 0x7FFF00001000, "[vdso]", "file"),
    ]


def test_what_was_first_at_an_address_stays_and_growth_is_added():
    memory = MemoryMap()
    memory.look(MAPS)
    memory.look(
        "00e03000-00e50000 rw-p 00000000 00:00 0           [heap]\n"
        "7effff000000-7f0000b00000 r--p 00000000 08:02 99          /lib/x.so\n"
    )
    assert memory.pieces[1:] == [
        Piece(0xE03000, 0xE50000, "[heap]", "anonymous"),
        Piece(0x7EFFFF000000, 0x7F0000000000, "/lib/x.so", "file"),
        Piece(0x7F0000000000, 0x7F0000A00000, "", "anonymous"),
        Piece(0x7F0000A00000, 0x7F0000B00000, "/lib/x.so", "file"),
        Piece(0x7FFF00000000, 0x7FFF00001000, "[vdso]", "file"),
    ]


def test_areas_are_cut_where_huge_pages_begin_and_end():
    memory = MemoryMap()
    memory.look(MAPS)
    memory.huge = {0x7F0000200000 >> 21, 0x7F0000400000 >> 21, 0x7F0000800000 >> 21}
    found = areas(memory, {0x7F0000000000 >> 21, 0x400000 >> 21})
    assert [(int(a["start"], 16), a["bytes"], a["caller"], a["kind"], a["mapping"]) for a in found] == [
        (0x400000, 0x52000, "my program", "file", "4K"),
        (0x7F0000000000, MIB2, "[anonymous]", "anonymous", "4K"),
        (0x7F0000200000, 2 * MIB2, "[anonymous]", "anonymous", "2M"),
        (0x7F0000600000, MIB2, "[anonymous]", "anonymous", "4K"),
        (0x7F0000800000, MIB2, "[anonymous]", "anonymous", "2M"),
    ]
    assert all(int(a["end"], 16) - int(a["start"], 16) == a["bytes"] for a in found)


def test_huge_pages_of_this_process_are_found():
    """As many as smaps counts in the same range."""
    memory = mmap.mmap(-1, 8 * MIB2, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    view = np.frombuffer(memory, np.uint8)
    view[::4096] = 1
    start = view.ctypes.data
    smaps = Path("/proc/self/smaps").read_text()
    counted = 0
    for found in re.finditer(r"^([0-9a-f]+)-([0-9a-f]+) .*?^AnonHugePages: +(\d+) kB", smaps, re.M | re.S):
        if int(found[1], 16) <= start < int(found[2], 16):
            counted = int(found[3]) * 1024
    looked = MemoryMap()
    looked.look_for_huge(os.getpid())
    if not looked.knows_huge or not counted:
        pytest.skip("this kernel tells no huge pages, or gave none")
    inside = [block for block in looked.huge if start <= block << 21 < start + 8 * MIB2]
    assert len(inside) * MIB2 == counted


# ---- the stream ------------------------------------------------------------------------


@pytest.fixture
def valgrind(tmp_path, monkeypatch):
    """Put a stand-in for valgrind first in PATH, whose body is a shell script; the log goes to 9."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def install(body):
        script = folder / "valgrind"
        find = 'for word in "$@"; do case $word in --log-file=*) exec 9>"${word#--log-file=}";; esac; done\n'
        script.write_text(f"#!/bin/bash\n{find}{body}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return install


def accesses(trace):
    chunks = list(trace.chunks("offset", "flags"))
    page = trace.pages[np.concatenate([chunk.page for chunk in chunks])]
    address = page << np.uint64(12) | np.concatenate([chunk.offset for chunk in chunks])
    return address.tolist(), np.concatenate([chunk.flags for chunk in chunks]).tolist()


def test_the_stream_becomes_the_same_trace_as_the_file(tmp_path, valgrind):
    valgrind(f"cat {LACKEY} >&9; exit 3")
    told = []
    assert record(["true", "a b"], tmp_path / "out", progress=told.append) == 3
    trace = open_trace(tmp_path / "out")
    assert accesses(trace) == accesses(open_trace(LACKEY))
    assert sum(told) == trace.accesses
    assert trace.about["workload"] == "true 'a b'"
    assert trace.about["ended_early"] is False
    assert trace.digest()


def test_a_number_of_records_ends_the_program(tmp_path, valgrind):
    valgrind(f"while true; do cat {LACKEY} >&9 || exit 1; done")
    assert record(["true"], tmp_path / "out", records=100) == 0
    trace = open_trace(tmp_path / "out")
    whole = accesses(open_trace(LACKEY))
    assert accesses(trace) == (whole[0][:100], whole[1][:100])
    assert trace.about["ended_early"] is True


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("echo nonsense >&9", "'nonsense' is no access"),
        ("printf ' L 1000,8\\n L 10' >&9", "ends within a line"),
        ("true", "no accesses"),
        ("exit 127", "cannot be run by valgrind"),
    ],
)
def test_what_is_no_trace_leaves_nothing(tmp_path, valgrind, body, told):
    valgrind(body)
    with pytest.raises(BadInput, match=told):
        record(["true"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_missing_programs_are_named(tmp_path, monkeypatch, valgrind):
    valgrind("true")
    with pytest.raises(BadInput, match="no-such-program: no such program"):
        record(["no-such-program"], tmp_path / "out")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput, match="valgrind: is not installed; apt-get install valgrind"):
        record(["/bin/true"], tmp_path / "out", tool="valgrind")
    with pytest.raises(BadInput, match="valgrind or drrun: is not installed"):
        record(["/bin/true"], tmp_path / "out")


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_a_real_program_is_recorded_with_its_memory_map(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["pagewalk", "trace", "record", "--records", "150000", "--", "echo", "--help", "it"]
    )
    main()
    trace = open_trace(tmp_path / "echo.trace")
    assert trace.accesses > 100_000
    layout = read_layout(tmp_path / "echo.trace")
    page = (trace.pages << np.uint64(12)).tolist()
    owned = [any(area.start <= address < area.end for area in layout.areas) for address in page]
    assert sum(owned) >= 0.95 * len(page)  # what was mapped and unmapped between two looks has no area
    names = {area.caller for area in layout.areas}
    assert "libc.so.6" in names
    assert {area.kind for area in layout.areas} == {"anonymous", "file"}
    for mapping in ("base", "pmd", "recorded"):
        assert len(map_trace(trace.pages, layout, mapping).leaf_shift) == len(page)
    said = capfd.readouterr()
    assert "Next: pagewalk trace info echo.trace" in said.err
    record_again = json.loads((tmp_path / "echo.trace" / "meta.json").read_text())
    assert record_again["recorder"]["workload"] == "echo --help it"


# ---- user memory under the mappings ------------------------------------------------------


def test_huge_pages_map_aligned_blocks_within_anonymous_memory():
    start = 0x7F0000000000
    layout = Layout(
        GEOMETRIES["x86-64"],
        (
            Area(0x400000, 0x900000, 0x500000, "program", kind="file"),
            Area(start - 0x1000, start + 3 * MIB2 - 0x1000, 3 * MIB2, "", kind="anonymous"),
            Area(start + 4 * MIB2, start + 5 * MIB2, MIB2, "", kind="anonymous", leaf="PMD"),
        ),
        no_runs(),
        no_runs(),
    )
    page = {
        "file": 0x600000,
        "below the first block": start - 0x1000,
        "first block": start,
        "second block": start + MIB2 + 0x5000,
        "third block, cut off": start + 2 * MIB2,
        "huge when recorded": start + 4 * MIB2 + 0x3000,
        "no area": 0x10000000,
        "kernel": 0xFFFF888000000000,
    }
    pages = np.array(list(page.values()), np.uint64) >> np.uint64(12)
    expected = {
        "base": [12] * 8,
        "recorded": [12, 12, 12, 12, 12, 21, 12, 12],
        "pmd": [12, 12, 21, 21, 12, 21, 12, 12],
    }
    for name, shifts in expected.items():
        mapping = map_trace(pages, layout, name)
        assert mapping.leaf_shift.tolist() == shifts
        assert mapping.page.tolist() == pages.tolist()  # nothing moves
    arm = map_trace(pages, layout, "contpte", geometry=GEOMETRIES["arm64-4k"])
    assert arm.leaf_shift.tolist() == [12, 12, 16, 16, 16, 16, 12, 12]
    regions = map_trace(pages, layout, "pmd").regions
    named = {region.name: (region.kind, region.leaf, region.size_bytes) for region in regions}
    assert named[f"user {start - 0x1000:#x}"] == ("anonymous", "mixed", 3 * MIB2)
    assert named["user 0x400000"] == ("file", "base", 0x500000)


def test_page_tables_of_user_memory_are_those_of_touched_pages():
    """Two pages in one table of 2 MiB: PTE, PMD, PUD table; with a huge page the PTE table is not needed."""
    start = 0x7F0000000000
    layout = Layout(
        GEOMETRIES["x86-64"],
        (Area(start, start + 2 * MIB2, 2 * MIB2, "", kind="anonymous"),),
        no_runs(),
        no_runs(),
    )
    pages = np.array([start, start + 0x1000], np.uint64) >> np.uint64(12)
    sizes = {name: map_trace(pages, layout, name).memory["page_tables"] for name in ("base", "pmd")}
    assert sizes == {"base": 3 * 4096, "pmd": 2 * 4096}
