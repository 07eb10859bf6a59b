"""Page-table dumps of three architectures, as layouts."""

from dataclasses import replace

import numpy as np
import pytest

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import geometry
from pagewalk.linux.layout import UNKNOWN_FRAME, Area, check_areas
from pagewalk.linux.mapping import map_trace
from pagewalk.linux.observe.page_tables import read_page_tables
from places import TEST_DATA

DATA = TEST_DATA / "kernel"
X86, VMALLOC = geometry("x86-64"), 0xFFFFC90000000000


def runs(name, geometry_name):
    layout = read_page_tables(DATA / f"page_tables-{name}.txt", geometry(geometry_name))
    return [tuple(int(x) for x in run) for run in layout.runs]


def test_x86():
    got = runs("x86", "x86-64")
    low = 0xFFFF888000000000
    # va, pa, count, shift, writable, exec, global
    assert got[0] == (low + 0x1000, 0x1000, 0x98, 12, 1, 0, 1)
    assert got[1] == (low + 0x99000, 0x99000, 1, 12, 0, 0, 1)
    assert got[3] == (low + 0x200000, 0x200000, 511, 21, 1, 0, 1)
    assert got[4] == (low + (1 << 30), 1 << 30, 23, 30, 1, 0, 1)
    assert (VMALLOC + 0x200000, UNKNOWN_FRAME, 5, 21, 1, 0, 1) in got
    assert (0xFFFFFFFF81000000, UNKNOWN_FRAME, 8, 21, 0, 1, 1) in got
    assert len(got) == 12


def test_arm64():
    got = runs("arm64", "arm64-4k")
    start = 0xFFFF000000000000
    assert got[0] == (start, 0, 1, 21, 1, 0, 1)
    assert got[1] == (start + 0x200000, 0x200000, 1, 16, 1, 0, 1)  # contiguous PTEs
    assert got[2] == (start + 0x210000, 0x210000, 496, 12, 0, 0, 1)
    assert got[7] == (start + 0x4000000, 0x4000000, 480, 21, 1, 0, 1)  # contiguous PMDs are PMD leaves
    vmalloc = [run for run in got if run[0] >= 0xFFFF800000000000]
    assert [(run[0] & 0xFFFFFFF, run[2], run[3]) for run in vmalloc] == [
        (0x200000, 47, 12),
        (0x230000, 1, 16),
        (0x400000, 4, 21),
    ]


def test_powerpc():
    """Its ends are inclusive, and it tells physical addresses."""
    got = runs("powerpc64", "powerpc64-radix-64k")
    assert got == [
        (0xC000000000000000, 0, 8, 21, 1, 1, 0),
        (0xC000000040000000, 1 << 30, 63, 30, 1, 0, 0),
        (0xC008000000000000, 0x123450000, 4, 16, 1, 0, 0),
        (0xC008000000200000, 0x7FE00000, 1, 21, 1, 0, 0),
    ]


def test_a_replay_over_a_dump_with_areas():
    layout = read_page_tables(DATA / "page_tables-x86.txt", X86)
    area = Area(VMALLOC + 0x200000, VMALLOC + 0xC01000, 0xA01000, "futex_hash_allocate", leaf="PMD")
    layout = replace(layout, areas=check_areas([area], X86, "test"))
    pages = np.array([VMALLOC, VMALLOC + 0x345000, 0xFFFF888012345000, 0xFFFF888088888000], np.uint64)
    recorded = map_trace(pages >> np.uint64(12), layout, "recorded")
    assert recorded.leaf_shift.tolist() == [12, 21, 21, 30]
    assert recorded.frame[2:].tolist() == [0x12345, 0x88888]
    assert (recorded.frame[:2] >= 1 << 40).all()  # a dump tells no frames of vmalloc: ours
    assert recorded.contiguous_shift[:2].tolist() == [12, 21]
    assert map_trace(pages >> np.uint64(12), layout, "base").leaf_shift.tolist() == [12, 12, 21, 30]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no leaf"),
        ("---[ vmalloc() Area ]---\n", "no leaf"),
        ("garbage\n", "line 1"),
        (
            "0xffffc90000000000-0xffffc90000004000          17K     RW                 GLB NX pte\n",
            "size 17K",
        ),
        (
            "0xffffc90000000000-0xffffc90000004000          16K     RW         PSE     GLB NX pmd\n",
            "PMD leaves",
        ),
        (
            "0xffffc90000004000-0xffffc90000000000          16K     RW                 GLB NX pte\n",
            "size 16K",
        ),
        ("0xffffc90000000800-0xffffc90000001800           4K     RW                 GLB NX pte\n", "aligned"),
        ("0xffffc90000000000-0xffffc90000001000           4K PTE       RW NX SHD AF\n", "x86"),
    ],
)
def test_bad_dumps(tmp_path, text, says):
    path = tmp_path / "dump"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        read_page_tables(path, X86)


def test_a_dump_of_another_architecture():
    with pytest.raises(BadInput, match="powerpc64"):
        read_page_tables(DATA / "page_tables-x86.txt", geometry("powerpc64-radix-4k"))
    with pytest.raises(BadInput, match="riscv"):
        read_page_tables(DATA / "page_tables-x86.txt", geometry("riscv-sv48"))
