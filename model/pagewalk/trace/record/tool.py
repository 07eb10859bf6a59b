"""What a tool that runs a program and tells its accesses has to say of itself."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pagewalk.trace.encode import RawChunk


@dataclass
class Running:
    """A program under a tool.

    Attributes
    ----------
    tool : Popen
        What was started.
    pid : int, optional
        The process whose accesses are told; None as long as nobody knows.
    """

    tool: subprocess.Popen[bytes]
    pid: int | None = None


class Tool(NamedTuple):
    """A tool that runs a program and tells its accesses through a pipe with a name.

    Attributes
    ----------
    name : str
        Of the tool, for people.
    executable : str
        What PATH has to lead to.
    mend : str
        What to do where it does not.
    words : callable
        ``words(executable, pipe)``: what stands before the program and its arguments. It raises BadInput if
        a part of the tool is missing.
    accesses : callable
        ``accesses(blocks, running)`` yields the accesses that blocks of bytes tell, and finds out `pid`.
    runs : callable
        Whether an executable (``/proc/PID/exe``) is a program under the tool.
    """

    name: str
    executable: str
    mend: str
    words: Callable[[Path, Path], list[str]]
    accesses: Callable[[Iterator[bytes], Running], Iterator[RawChunk]]
    runs: Callable[[Path], bool]
