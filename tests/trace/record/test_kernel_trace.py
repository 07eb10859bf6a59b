"""tools/kernel-trace: its plugin in a real emulator, its reading of page tables and of vmallocinfo."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from pagewalk.linux.layout import LEAF_RUN
from pagewalk.trace.encode import encoded
from pagewalk.trace.open import open_trace
from pagewalk.trace.readers.binary import read_capture
from pagewalk.trace.store.write import write_stream
from pagewalk.trace.trace import FETCH, FLUSH_ALL, FLUSH_LOCAL, KERNEL, STORE
from places import REPOSITORY, TEST_DATA

TOOL = REPOSITORY / "tools" / "kernel-trace"
GUEST = TEST_DATA / "kernel-trace" / "guest.S"
DIRECT_MAP, VMALLOC = 0xFFFF_8880_0000_0000, 0xFFFF_C900_0000_0000


def _load(name):
    spec = importlib.util.spec_from_file_location(f"kernel_trace_{name}", TOOL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page_tables, pack = _load("page_tables"), _load("pack")


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A folder with window.0.bin, window.0.json and memory of the guest of 512 bytes, run once."""
    for program in ("qemu-system-x86_64", "gcc", "as", "ld"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("guest")

    def run(*command):
        return subprocess.run(command, cwd=folder, timeout=60, capture_output=True)

    run("gcc", "-O2", "-fPIC", "-shared", "-o", "memtrace.so", TOOL / "memtrace.c").check_returncode()
    run("as", "--64", "-o", "guest.o", GUEST).check_returncode()
    run("ld", "-Ttext", "0x7c00", "--oformat", "binary", "-o", "guest.img", "guest.o").check_returncode()
    memory = "memory-backend-file,id=memory,size=16M,mem-path=memory,share=on"
    ended = run(
        *shlex.split(
            f"""qemu-system-x86_64 -nodefaults -display none -no-reboot -m 16M
            -machine pc,memory-backend=memory -object {memory}
            -drive file=guest.img,format=raw -device isa-debug-exit,iobase=0xf4,iosize=1
            -accel tcg,thread=single -plugin ./memtrace.so,out=window"""
        )
    )
    assert ended.returncode == 1, ended.stderr  # isa-debug-exit: (0 << 1) | 1
    return folder


def _symbol(folder, name):
    listing = subprocess.run(["nm", folder / "guest.o"], capture_output=True, text=True, check=True).stdout
    return 0x7C00 + int(
        next(line.split()[0] for line in listing.splitlines() if line.endswith(f" {name}")), 16
    )


def test_the_emulator_records_what_the_guest_did(machine):
    chunks = list(read_capture(machine / "window.0.bin").read(1 << 20))
    assert len(chunks) == 1
    expected = [
        (DIRECT_MAP + _symbol(machine, "high"), 0, FETCH),
        (VMALLOC + 0x10, 3, 0),
        (VMALLOC + 0x1FFF, 0, STORE),
        (VMALLOC + 0x2004, 2, STORE),
        (VMALLOC + 0x10, 1, 0),
        (VMALLOC + 0x10, 1, STORE),
        *((VMALLOC + 0x100 + 8 * i, 3, 0) for i in range(1000)),
    ]
    assert chunks[0].address.tolist() == [address for address, _, _ in expected]
    assert chunks[0].flags.tolist() == [size | kind | KERNEL for _, size, kind in expected]
    assert chunks[0].cpu is None
    events = chunks[0].events
    assert events["position"].tolist() == [4, 6]
    assert events["kind"].tolist() == [FLUSH_LOCAL, FLUSH_ALL]
    counters = json.loads((machine / "window.0.json").read_text())
    assert (counters["load_kernel_half"], counters["store_kernel_half"]) == (1002, 3)
    assert (counters["records"], counters["truncated"]) == (1006, False)


def test_a_capture_is_a_trace_by_itself_and_as_a_folder(machine, tmp_path):
    capture = machine / "window.0.bin"
    write_stream(read_capture(capture).read(100), tmp_path / "folder")
    for trace in (encoded(read_capture(capture)), open_trace(tmp_path / "folder")):
        assert trace.accesses == 1006
        assert sorted(trace.pages << np.uint64(12)) == [
            DIRECT_MAP + 0x7000,
            *(VMALLOC + page * 4096 for page in range(3)),
        ]
        assert trace.events["position"].tolist() == [4, 6]


def test_page_tables_are_read_out_of_the_guests_memory(machine):
    leaves = page_tables.kernel_leaves(page_tables.Memory([machine / "memory"]), 0x1000)
    assert leaves.dtype == LEAF_RUN
    assert leaves.tolist() == [
        (DIRECT_MAP, 0, 1, 21, 1, 1, 1),
        (VMALLOC, 0x8000, 2, 12, 1, 1, 0),
        (VMALLOC + 0x2000, 0xB000, 1, 12, 1, 1, 0),
        (VMALLOC + 0x3000, 0xC000, 1, 12, 0, 1, 0),
    ]


def test_page_tables_beyond_the_hole_below_4_gib(tmp_path):
    """Two nodes of 2 GiB each: a table at 4 GiB lies 3 GiB into the files; all leaf sizes; no execution."""
    size, hole_end, low_end = 2 << 30, 1 << 32, 0xC000_0000
    nodes = [np.memmap(tmp_path / str(node), "<u8", "w+", shape=(size // 8,)) for node in range(2)]

    def enter(table, index, entry):
        offset = table - hole_end + low_end if table >= hole_end else table
        nodes[offset // size][offset % size // 8 + index] = entry

    enter(0x5000, 300, hole_end | 3)  # slot 300 of the top table begins at 0xffff960000000000
    enter(0x5000, 10, 0x5003)  # user half: left out
    enter(hole_end, 0, 0x4000_0000 | 0x183 | 1 << 63)  # 1 GiB, global, not executable
    enter(hole_end, 1, 0x7000 | 3)
    enter(0x7000, 0, 0x20_0000 | 0x83)
    enter(0x7000, 1, 0x40_0000 | 0x83)
    enter(0x7000, 2, 0x8000 | 1)  # a table that is read-only
    enter(0x8000, 511, 0x9000 | 3)
    enter(0x8000, 3, 0)
    enter(0x5000, 510, 0xD000_0000 | 3)  # a table in the hole: no memory there
    found = page_tables.kernel_leaves(page_tables.Memory([tmp_path / "0", tmp_path / "1"]), 0x5000)
    start = 0xFFFF_9600_0000_0000
    assert found.tolist() == [
        (start, 0x4000_0000, 1, 30, 1, 0, 1),
        (start + (1 << 30), 0x20_0000, 2, 21, 1, 1, 0),
        (start + (1 << 30) + (2 << 21) + 511 * 4096, 0x9000, 1, 12, 0, 1, 0),
    ]


VMALLOCINFO = """\
0xffffc90000000000-0xffffc90000005000   20480 irq_init_percpu_irqstack+0xca/0x100 vmap
0xffffc90000005000-0xffffc90000007000    8192 acpi_os_map_iomem+0x1bc/0x1e0 phys=0x00000000000a0000 ioremap
0xffffc90000400000-0xffffc90000801000 4198400 alloc_large_system_hash+0x1/0x2 pages=1024 vmalloc N0=512 N1=512
0xffffc90000900000-0xffffc90000905000   20480 unpurged vm_area
0xffffffffc0000000-0xffffffffc0005000   20480 load_module+0x9b1/0xb60 [ext4] pages=4 vmalloc N0=4
"""


def test_regions_of_vmallocinfo(tmp_path):
    (tmp_path / "x-begin.vmallocinfo").write_text(VMALLOCINFO)
    later = VMALLOCINFO.replace("unpurged vm_area", "kernel_clone+0x94/0x3e0 pages=4 vmalloc N0=4")
    (tmp_path / "x-end.vmallocinfo").write_text(later)
    leaves = np.array(
        [
            (0xFFFFC90000000000, 0, 4, 12, 1, 0, 1),
            (0xFFFFC90000400000, 0x400000, 2, 21, 1, 0, 1),
            (0xFFFFC90000900000, 0x800000, 4, 12, 1, 0, 1),
        ],
        LEAF_RUN,
    )
    np.save(tmp_path / "x-begin.leaves.npy", leaves[:2])
    np.save(tmp_path / "x-end.leaves.npy", leaves)
    found = pack.regions(tmp_path, "x")
    brief = [
        (r["caller"].split("+")[0], r["kind"], r["mapping"], r["is_stack"], r["at_begin"]) for r in found
    ]
    assert brief == [
        ("irq_init_percpu_irqstack", "vmap", "4K", True, True),
        ("acpi_os_map_iomem", "ioremap", "none", False, True),
        ("alloc_large_system_hash", "vmalloc", "2M", False, True),
        ("kernel_clone", "vmalloc", "4K", True, False),  # its address was lazily freed when the window opened
        ("load_module", "vmalloc", "none", False, True),
    ]
    hash_table = found[2]
    assert (hash_table["bytes"], hash_table["pages"]) == (0x401000, 1024)
    assert hash_table["nodes"] == {"N0": 512, "N1": 512}
    assert (hash_table["leaf_2m"], hash_table["leaf_4k"]) == (2, 0)
    assert found[4]["module"] == "ext4"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nosuch", "--out", "x"], "no workload nosuch"),
        (["script", "--out", "x"], "--script FILE"),
        (["fdtable", "--out", "."], "exists already"),
        (["fdtable", "--out", "x", "--cpus", "0"], "1 to 255 CPUs"),
    ],
)
def test_wrong_words_end_in_one_line_and_nothing_written(words, told, tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL / "record.py", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif("PAGEWALK_KERNEL_WORK" not in os.environ, reason="boots a kernel: name a work folder")
@pytest.mark.parametrize(
    ("options", "cpus", "leaf"), [([], 1, "2M"), (["--append", "nohugevmalloc", "--cpus", "2"], 2, "4K")]
)
def test_a_distribution_kernel_is_recorded(tmp_path, options, cpus, leaf):
    """PAGEWALK_KERNEL_WORK=FOLDER: a folder for --work; it is filled the first time."""
    words = ["fdtable:4096:2000", "--out", tmp_path / "out", "--work", os.environ["PAGEWALK_KERNEL_WORK"]]
    subprocess.run(
        [sys.executable, TOOL / "record.py", *words, "--mem-gib", "8", *options], check=True, timeout=300
    )
    trace = open_trace(tmp_path / "out")
    assert trace.accesses > 100_000
    assert trace.cpus == cpus
    listed = json.loads((tmp_path / "out" / "regions.json").read_text())
    tables = [area for area in listed if area["caller"].startswith("alloc_fdtable+")]
    assert [(area["mapping"], area["bytes"] >> 20) for area in tables if area["bytes"] > 1 << 23] == [
        (leaf, 8)
    ]
    page = trace.pages << np.uint64(12)
    inside = (page >= int(tables[-1]["start"], 16)) & (page < int(tables[-1]["end"], 16))
    assert inside.sum() > 1000  # 4096 descriptors spread over 2048 pages
