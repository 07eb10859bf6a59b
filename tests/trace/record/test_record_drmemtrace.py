"""Recording through DynamoRIO: a stand-in named drrun says what the public description says it says.

``drrun -c libdrmemtrace.so -ipc_name PIPE -- PROGRAM``: each write into the pipe is whole entries, the first
of which names the thread; a new thread's first write names its process; a buffer begins with time and CPU;
there is neither header nor footer. The program takes over drrun's process, so its exit status is drrun's.
"""

import os
import signal
import stat
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pagewalk.cli import main
from pagewalk.errors import BadInput
from pagewalk.linux.layout import read_layout
from pagewalk.trace.open import open_trace
from pagewalk.trace.record.program import record as record_by_any

STAND_IN = f"""\
#!{sys.executable} -IS
import mmap, os, signal, struct, sys, time
assert sys.argv[1] == "-c" and sys.argv[3] == "-ipc_name" and sys.argv[5] == "--", sys.argv
assert os.path.basename(sys.argv[2]) == "libdrmemtrace.so" and os.path.exists(sys.argv[2])
pipe = os.open(sys.argv[4], os.O_WRONLY)
def say(*entries):
    os.write(pipe, b"".join(struct.pack("<HHq", *entry) for entry in entries))
def thread(tid, pid):
    say((22, 8, tid), (24, 8, pid), (28, 0, 6), (28, 1, 64))
def buffer(tid, cpu, *entries):
    say((22, 8, tid), (28, 2, 13312410768080478), (28, 3, cpu), *entries)
me = os.getpid()
"""

LOAD, STORE, FETCH = 0, 1, 10
DATA = 0x7F5A_0000_1230

record = partial(record_by_any, tool="drmemtrace")


@pytest.fixture
def drrun(tmp_path, monkeypatch):
    """Install a stand-in, alone in PATH but for the system's programs; its body may `say` things."""
    root = tmp_path / "DynamoRIO"
    library = root / "tools" / "lib64" / "release" / "libdrmemtrace.so"
    library.parent.mkdir(parents=True)
    library.touch()
    script = root / "bin64" / "drrun"
    script.parent.mkdir()

    def install(body):
        script.write_text(STAND_IN + body)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}/bin")
        return root

    return install


def recorded(folder):
    """(address, flags, CPU) of each access of a folder."""
    trace = open_trace(folder)
    chunks = list(trace.chunks("offset", "flags", "cpu"))
    page = trace.pages[np.concatenate([chunk.page for chunk in chunks])]
    address = page << np.uint64(12) | np.concatenate([chunk.offset for chunk in chunks])
    flags = np.concatenate([chunk.flags for chunk in chunks])
    cpu = np.concatenate([np.zeros(len(each.page), int) if each.cpu is None else each.cpu for each in chunks])
    return list(zip(address.tolist(), flags.tolist(), cpu.tolist(), strict=True))


def test_accesses_of_all_threads_come_in_order_each_on_its_cpu(tmp_path, drrun):
    """A write that goes on with a buffer names only its thread: it is on the CPU that the buffer began on."""
    drrun(
        f"""\
thread(me, me)
buffer(me, 70, (10, 4, 0x401000), (0, 8, {DATA}))
thread(me + 1, me)
buffer(me + 1, 9 | 1 << 12, (1, 4, {DATA + 0x5000}))
say((22, 8, me), (10, 2, 0x402000), (17, 2, 0x0305), (0, 1, {DATA + 7}))
say((22, 8, me + 1), (3, 1, 99), (0, 2, {DATA - 0x3000}))
buffer(me, 9, (1, 16, {DATA}), (23, 8, me))
os.execv(sys.argv[6], sys.argv[6:])
"""
    )
    assert record(["sh", "-c", "exit 7"], tmp_path / "out") == 7
    fetch, store = 1 << 5, 1 << 3
    assert recorded(tmp_path / "out") == [
        (0x401000, fetch | 2, 0),
        (DATA, 3, 0),
        (DATA + 0x5000, store | 2, 1),
        (0x402000, fetch | 1, 0),
        (0x402002, fetch, 0),  # a bundle: two more instructions, of 5 and 3 bytes
        (0x402007, fetch, 0),
        (DATA + 7, 0, 0),
        (DATA - 0x3000, 1, 1),
        (DATA, store | 4, 1),
    ]
    assert open_trace(tmp_path / "out").about["workload"] == "sh -c 'exit 7'"


def test_children_are_left_out(tmp_path, drrun):
    """Of their own process id, at the same addresses, even where a block ends between two writes."""
    drrun(
        f"""\
thread(me, me)
for turn in range(400):
    buffer(me, 0, *[(0, 8, {DATA} + turn * 4096)] * 300)
    thread(me + 5, me + 5)
    buffer(me + 5, 0, *[(1, 8, {DATA})] * 300)
"""
    )
    assert record(["true"], tmp_path / "out") == 0
    found = recorded(tmp_path / "out")
    assert found == [(DATA + turn * 4096, 3, 0) for turn in range(400) for _ in range(300)]


def test_a_child_that_writes_on_is_not_waited_for(tmp_path, drrun):
    drrun(
        f"""\
thread(me, me)
buffer(me, 0, (0, 8, {DATA}))
if not os.fork():
    thread(os.getpid(), os.getpid())
    while True:
        buffer(os.getpid(), 0, *[(1, 8, {DATA})] * 300)
"""
    )
    assert record(["true"], tmp_path / "out") == 0
    assert recorded(tmp_path / "out") == [(DATA, 3, 0)]


def test_its_own_memory_is_the_layout(tmp_path, drrun):
    """The stand-in tells of 8 MiB that it has mapped itself; the pipe makes it wait to be looked at."""
    drrun(
        f"""\
import ctypes
memory = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
open({str(tmp_path / "start")!r}, "w").write(str(start))
thread(me, me)
for turn in range(1200):
    buffer(me, 0, *[(1, 8, start + turn * 4096)] * 300)
"""
    )
    assert record(["true"], tmp_path / "out") == 0
    start = int((tmp_path / "start").read_text())
    (mine,) = [area for area in read_layout(tmp_path / "out").areas if area.start <= start < area.end]
    assert mine.kind == "anonymous"
    assert mine.end >= start + 1200 * 4096 or mine.leaf == "PMD"


def test_what_it_did_before_it_was_killed_is_kept(tmp_path, drrun):
    drrun(f"thread(me, me)\nbuffer(me, 0, (0, 8, {DATA}))\nos.kill(me, signal.SIGKILL)\n")
    assert record(["true"], tmp_path / "out") == -signal.SIGKILL
    assert recorded(tmp_path / "out") == [(DATA, 3, 0)]


def test_a_number_of_records_ends_it(tmp_path, drrun):
    drrun(f"thread(me, me)\nwhile True: buffer(me, 0, *[(0, 8, {DATA})] * 300)\n")
    assert record(["true"], tmp_path / "out", records=1000) == 0
    assert recorded(tmp_path / "out") == [(DATA, 3, 0)] * 1000


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("sys.exit(1)", "drrun: told no accesses; see its message above"),
        ("thread(me, me)", "there was no access at all"),
        ("thread(me, me); os.write(pipe, bytes(7))", "drrun: entry 4: ends within an entry"),
        ("thread(me, me); say((0, 8, 4096), (777, 0, 0))", "drrun: entry 5: of type 777"),
    ],
    ids=["fails", "is silent", "is cut off", "says nonsense"],
)
def test_what_is_no_trace_leaves_nothing(tmp_path, drrun, body, told):
    drrun(body)
    with pytest.raises(BadInput, match=told):
        record(["true"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["DynamoRIO"]


def test_a_package_without_the_tracer_is_refused(tmp_path, drrun):
    root = drrun("")
    (root / "tools" / "lib64" / "release" / "libdrmemtrace.so").unlink()
    with pytest.raises(BadInput, match="bin64/drrun: has no tools/lib64/release/libdrmemtrace"):
        record(["true"], tmp_path / "out")
    built = root / "clients" / "lib64" / "release" / "libdrmemtrace.so"
    built.parent.mkdir(parents=True)
    built.touch()
    drrun(f"thread(me, me)\nbuffer(me, 0, (0, 8, {DATA}))\n")
    assert record(["true"], tmp_path / "out") == 0


def test_with_says_which_of_two(tmp_path, drrun, monkeypatch, capfd):
    root = drrun(f"thread(me, me)\nbuffer(me, 0, (0, 8, {DATA}))\n")
    valgrind = root / "bin64" / "valgrind"
    valgrind.write_text(
        '#!/bin/bash\nfor word; do case $word in --log-file=*) echo " L 1000,8" >"${word#*=}";; esac; done\n'
    )
    valgrind.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for options, address in (
        ([], 0x1000),
        (["--with", "drmemtrace"], DATA),
        (["--with", "valgrind"], 0x1000),
    ):
        out = f"{len(list(tmp_path.iterdir()))}.trace"
        arguments = ["pagewalk", "trace", "record", "--out", out, *options, "--", "true"]
        monkeypatch.setattr("sys.argv", arguments)
        main()
        assert open_trace(tmp_path / out).pages.tolist() == [address >> 12]


def test_an_interrupted_recording_leaves_nothing_and_nobody(tmp_path, drrun):
    drrun(f"thread(me, me)\nwhile True: buffer(me, 0, *[(0, 8, {DATA})] * 300)\n")
    folder, temporary = tmp_path / "here", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    running = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pagewalk",
            "trace",
            "record",
            "--with",
            "drmemtrace",
            "--out",
            "out",
            "--",
            "true",
        ],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 60
    while not list(folder.glob(".out.*/page.npy.zst")):
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.1)
    (child,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130
    assert not list(folder.iterdir()) and not list(temporary.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)


def test_entries_are_those_of_offline_files(tmp_path, drrun):
    """The same entries in a file with header and footer, read by the file's reader, are the same accesses."""
    entries = [(LOAD, 8, DATA), (FETCH, 4, 0x401000), (STORE, 2, DATA + 4096), (17, 1, 0x04)]
    drrun(f"thread(me, me)\nbuffer(me, 0, *{entries})\n")
    assert record(["true"], tmp_path / "out") == 0
    pack = struct.Struct("<HHq").pack
    inside = [(22, 8, 5), (24, 8, 5), (28, 3, 0), *entries]
    file = tmp_path / "offline.trace"
    file.write_bytes(b"".join(pack(*entry) for entry in [(25, 0, 6), *inside, (26, 0, 0)]))
    assert recorded(tmp_path / "out") == recorded(file)
