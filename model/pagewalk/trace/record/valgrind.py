"""valgrind's lackey: a line of text for each access, of one process."""

from collections.abc import Iterator
from pathlib import Path

from pagewalk.trace.encode import RawChunk
from pagewalk.trace.readers.text import LACKEY, parsed
from pagewalk.trace.record.tool import Running, Tool
from pagewalk.trace.trace import CHUNK

OPTIONS = ("--tool=lackey", "--trace-mem=yes", "--trace-children=no", "--child-silent-after-fork=yes")


def _words(valgrind: Path, pipe: Path) -> list[str]:
    return [str(valgrind), *OPTIONS, f"--log-file={str(pipe).replace('%', '%%')}"]


def _accesses(blocks: Iterator[bytes], running: Running) -> Iterator[RawChunk]:
    running.pid = running.tool.pid
    return parsed(blocks, LACKEY, CHUNK, LACKEY.parser(), lambda byte: f"valgrind: byte {byte}")


VALGRIND = Tool(
    "valgrind lackey",
    "valgrind",
    "apt-get install valgrind",
    _words,
    _accesses,
    lambda program: program.name.startswith("lackey-"),
)
"""Programs that it starts go on alone, and what a process becomes (execve) too."""
