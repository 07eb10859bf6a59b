"""Run a program under valgrind's lackey, and turn what that says into a trace folder on the fly."""

import contextlib
import fcntl
import json
import os
import platform
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path

import numpy as np

from pagewalk.errors import BadInput
from pagewalk.trace.encode import RawChunk
from pagewalk.trace.instructions import EACH
from pagewalk.trace.readers.text import LACKEY, parsed
from pagewalk.trace.record.memory_map import PMD_SHIFT, MemoryMap, areas
from pagewalk.trace.store.write import write_stream
from pagewalk.trace.trace import CHUNK

PIPE_BYTES = 1 << 20
"""So much may the program be ahead of us; an unprivileged pipe's limit (man 7 pipe)."""

GRACE_SECONDS = 3
"""So long may the program take to end when it is asked to; ours."""

PAUSE_SECONDS = 0.005
"""valgrind writes line by line: so long do we let it, rather than wake for each; ours."""

SCAN_SECONDS = 0.2
"""At least so long between two searches for huge pages; ours."""

VALGRIND = ("--tool=lackey", "--trace-mem=yes", "--trace-children=no", "--child-silent-after-fork=yes")


def record(
    command: Sequence[str],
    target: Path,
    records: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Run a command and write what it accesses as a new trace folder.

    The command keeps its standard input, output and error. Its memory map is looked at while it runs, so the
    folder has a layout: its memory by name, and which of it huge pages mapped under valgrind.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments. Programs that it starts are not recorded.
    target : Path
        Must not exist.
    records : int, optional
        End the program after so many.
    progress : callable, optional
        Called with the number of records written since the last call.

    Returns
    -------
    int
        The command's exit status; 0 if it was ended because of `records`.

    Raises
    ------
    BadInput
        valgrind is missing or says other things than lackey's, or there is no such command. Nothing is left.
    """
    valgrind, program = shutil.which("valgrind"), shutil.which(command[0])
    if valgrind is None:
        raise BadInput("valgrind", "is not installed", "apt-get install valgrind")
    if program is None:
        raise BadInput(command[0], "no such program", "give a path, or a name that PATH leads to")
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    words = [valgrind, *VALGRIND, f"--log-fd={writing}", program, *command[1:]]
    memory, beside, about = MemoryMap(), dict[str, bytes](), dict[str, object]()
    finished = False
    with os.fdopen(reading, "rb", buffering=0) as log:
        try:
            running = subprocess.Popen(words, pass_fds=(writing,))
        finally:
            os.close(writing)
        try:
            blocks = _watched(log.fileno(), running, memory)
            accesses = parsed(blocks, LACKEY, CHUNK, LACKEY.parser(), lambda byte: f"valgrind: byte {byte}")
            chunks = _until(accesses, records, memory, beside, about)
            about |= EACH | {"workload": shlex.join(command), "kernel": f"Linux {platform.release()}"}
            source = f"valgrind lackey, {shlex.join(command)}"
            write_stream(chunks, target, source=source, about=about, beside=beside, progress=progress)
            finished = not about["ended_early"]
        except BadInput:
            log.close()
            if _ended(running) == 127:
                raise BadInput(program, "cannot be run by valgrind", "see its message above") from None
            raise
        finally:
            log.close()  # valgrind may be waiting for us to read, and deaf to signals while it waits
            if not finished:
                running.terminate()
            status = _ended(running)
    return status if finished else 0


def _ended(running: subprocess.Popen[bytes]) -> int:
    """The exit status of a program that is about to end, or is made to."""
    for end in (running.terminate, running.kill):
        try:
            return running.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            end()
    return running.wait()


def _watched(log: int, running: subprocess.Popen[bytes], memory: MemoryMap) -> Iterator[bytes]:
    """What valgrind says, in blocks; before each, a look at the memory of the program, which waits for us.

    It ends with the program, even if a child that it left behind keeps the pipe open.
    """
    last, traced = -SCAN_SECONDS, False
    while True:
        with contextlib.suppress(OSError):
            memory.look(Path(f"/proc/{running.pid}/maps").read_text("utf-8", "replace"))
        if time.monotonic() - last >= SCAN_SECONDS:
            memory.look_for_huge(running.pid)
            last = time.monotonic()
        parts, size = list[bytes](), 0
        while size < PIPE_BYTES:
            over = running.poll() is not None
            if not select.select([log], [], [], SCAN_SECONDS)[0]:
                traced = _is_tracer(running, traced)
                if over:
                    break
                continue
            part = os.read(log, PIPE_BYTES - size)
            if not parts:
                traced = _is_tracer(running, traced)
            if not part:
                break
            parts.append(part)
            size += len(part)
            if len(part) < PIPE_BYTES // 16:
                time.sleep(PAUSE_SECONDS)
        if not size:
            return
        yield b"".join(parts)


def _is_tracer(running: subprocess.Popen[bytes], was: bool) -> bool:
    """Whether the program runs under lackey; `was`: whether it did before.

    Raises
    ------
    BadInput
        It has become another one (execve), which valgrind leaves alone.
    """
    if running.poll() is None:
        with contextlib.suppress(OSError):
            program = Path(f"/proc/{running.pid}/exe").readlink()
            if program.name.startswith("lackey-"):
                return True
            if was:
                raise BadInput("the command", f"goes on as {program}", "record that program itself")
    return was


def _until(
    chunks: Iterator[RawChunk],
    records: int | None,
    memory: MemoryMap,
    beside: MutableMapping[str, bytes],
    about: MutableMapping[str, object],
) -> Iterator[RawChunk]:
    """Pass on the chunks, up to a number of records; then say what memory they touched."""
    touched: set[int] = set()
    left = records
    about["ended_early"] = False
    for whole in chunks:
        chunk = whole
        if left is not None and len(chunk.address) >= left:
            chunk = RawChunk(chunk.address[:left], None if chunk.flags is None else chunk.flags[:left])
        block = chunk.address >> np.uint64(PMD_SHIFT)
        touched.update(np.unique(block[np.append(True, block[1:] != block[:-1])]).tolist())
        yield chunk
        if left is not None:
            left -= len(chunk.address)
            if left <= 0:
                about["ended_early"] = True
                break
    about["huge_pages_known"] = memory.knows_huge
    beside["regions.json"] = json.dumps(areas(memory, touched), indent=0).encode()
