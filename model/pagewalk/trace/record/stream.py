"""What a tool says while it runs a program, and a look at the program's memory before each part of it."""

import array
import contextlib
import fcntl
import os
import select
import termios
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.trace.record.memory_map import MemoryMap
from pagewalk.trace.record.tool import Running

PIPE_BYTES = 1 << 20
"""So much may the program be ahead of us; an unprivileged pipe's limit (man 7 pipe)."""

FIRST_BYTES = 1 << 12
"""So much is enough to know which process it is, and so little that it cannot be over yet."""

PAUSE_SECONDS = 0.005
"""Tools write line by line: so long do we let them, rather than wake for each; ours."""

SCAN_SECONDS = 0.2
"""At least so long between two searches for huge pages; ours."""


def opened(pipe: Path) -> FileIO:
    """Make a pipe with a name and open it for both directions, so that it has no end while nobody writes."""
    os.mkfifo(pipe, 0o600)
    reading = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return FileIO(reading, "r")


def watched(pipe: int, running: Running, memory: MemoryMap, runs: Callable[[Path], bool]) -> Iterator[bytes]:
    """What comes through the pipe, in blocks; before each, a look at the memory of the program, which waits.

    It ends with what the program had written when it ended, even if a child that it left behind goes on.

    Raises
    ------
    BadInput
        The program has become another one, which the tool does not run (`Tool.runs`).
    """
    last, run, wanted, over = -SCAN_SECONDS, False, FIRST_BYTES, False
    while not over:
        if running.pid is not None:
            with contextlib.suppress(OSError):
                memory.look(Path(f"/proc/{running.pid}/maps").read_text("utf-8", "replace"))
            if time.monotonic() - last >= SCAN_SECONDS:
                memory.look_for_huge(running.pid)
                last = time.monotonic()
        parts, size = list[bytes](), 0
        while size < wanted and not (over := running.tool.poll() is not None):
            ready = select.select([pipe], [], [], SCAN_SECONDS)[0]
            run = _still(running, runs, run)
            if ready:
                part = os.read(pipe, PIPE_BYTES - size)
                parts.append(part)
                size += len(part)
                if len(part) < PIPE_BYTES // 16:
                    time.sleep(PAUSE_SECONDS)
        yield b"".join(parts)
        wanted = PIPE_BYTES
    if left := _waiting(pipe):
        yield os.read(pipe, left)


def _waiting(pipe: int) -> int:
    """How many bytes lie in the pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def _still(running: Running, runs: Callable[[Path], bool], was: bool) -> bool:
    """Whether the program runs under the tool; `was`: whether it did before."""
    if running.tool.poll() is None:
        with contextlib.suppress(OSError):
            program = Path(f"/proc/{running.tool.pid}/exe").readlink()
            if runs(program):
                return True
            if was:
                raise BadInput("the command", f"goes on as {program}", "record that program itself")
    return was
