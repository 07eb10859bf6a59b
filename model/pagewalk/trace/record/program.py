"""Run a program under a tool that tells its accesses, and turn those into a trace folder on the fly."""

import json
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pagewalk.errors import BadInput
from pagewalk.trace.encode import RawChunk, pieces
from pagewalk.trace.instructions import EACH
from pagewalk.trace.record.drmemtrace import DRMEMTRACE
from pagewalk.trace.record.memory_map import PMD_SHIFT, MemoryMap, areas
from pagewalk.trace.record.stream import opened, watched
from pagewalk.trace.record.tool import Running, Tool
from pagewalk.trace.record.valgrind import VALGRIND
from pagewalk.trace.store.write import write_stream

GRACE_SECONDS = 3
"""So long may the program take to end when it is asked to; ours."""

TOOLS = {"valgrind": VALGRIND, "drmemtrace": DRMEMTRACE}
"""The first that is installed is taken."""


def record(
    command: Sequence[str],
    target: Path,
    records: int | None = None,
    progress: Callable[[int], None] | None = None,
    tool: str | None = None,
) -> int:
    """Run a command and write what it accesses as a new trace folder.

    The command keeps its standard input, output and error. Its memory map is looked at while it runs, so the
    folder has a layout: its memory by name, and which of it huge pages mapped under the tool.

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
    tool : {"valgrind", "drmemtrace"}, optional
        By default the first of them that is installed.

    Returns
    -------
    int
        The command's exit status; 0 if it was ended because of `records`.

    Raises
    ------
    BadInput
        The tool is missing or says other things than it should, or there is no such command. Nothing is left.
    """
    recorder, executable = _installed(tool)
    program = shutil.which(command[0])
    if program is None:
        raise BadInput(command[0], "no such program", "give a path, or a name that PATH leads to")
    memory, beside, about = MemoryMap(), dict[str, bytes](), dict[str, object]()
    finished = False
    with TemporaryDirectory(prefix="pagewalk-") as folder, opened(Path(folder) / "accesses") as pipe:
        words = recorder.words(executable, Path(folder) / "accesses")
        running = Running(subprocess.Popen([*words, program, *command[1:]]))
        try:
            blocks = watched(pipe.fileno(), running, memory, recorder.runs)
            chunks = _until(recorder.accesses(blocks, running), records, memory, beside, about)
            about |= EACH | {"workload": shlex.join(command), "kernel": f"Linux {platform.release()}"}
            source = f"{recorder.name}, {shlex.join(command)}"
            write_stream(chunks, target, source=source, about=about, beside=beside, progress=progress)
            finished = not about["ended_early"]
        except BadInput:
            if running.tool.poll() == 127:
                told = f"cannot be run by {recorder.executable}"
                raise BadInput(program, told, "see its message above") from None
            raise
        finally:
            pipe.close()  # the tool may be waiting for us to read, and deaf to signals while it waits
            if not finished:
                running.tool.terminate()
            status = _ended(running.tool)
    return status if finished else 0


def _installed(name: str | None) -> tuple[Tool, Path]:
    """The tool of a name, or the first that is there, and its executable."""
    wanted = [TOOLS[name]] if name else list(TOOLS.values())
    for tool in wanted:
        if found := shutil.which(tool.executable):
            return tool, Path(found)
    missing = " or ".join(tool.executable for tool in wanted)
    raise BadInput(missing, "is not installed", "; or ".join(tool.mend for tool in wanted))


def _ended(running: subprocess.Popen[bytes]) -> int:
    """The exit status of a program that is about to end, or is made to."""
    for end in (running.terminate, running.kill):
        try:
            return running.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            end()
    return running.wait()


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
        chunk = whole if left is None else next(pieces(whole, left))
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
