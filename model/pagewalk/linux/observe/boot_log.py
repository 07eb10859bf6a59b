"""The kernel's boot log: its release, its command line, and the hash tables it made."""

import re
from dataclasses import dataclass
from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.linux.observe.lines import read_lines
from pagewalk.linux.rules.releases import Release, release


@dataclass(frozen=True)
class LoggedTable:
    """A hash table as logged.

    Attributes
    ----------
    name : str
    entries, size_bytes : int
    place : str
        linear, vmalloc, vmalloc hugepage; "" where the line does not say.
    """

    name: str
    entries: int
    size_bytes: int
    place: str = ""


@dataclass(frozen=True)
class BootLog:
    """What the log tells.

    Attributes
    ----------
    release : Release, optional
        None where the log does not begin with the kernel's banner.
    parameters : tuple of str
        The kernel's command line.
    tables : tuple of LoggedTable
    """

    release: Release | None
    parameters: tuple[str, ...]
    tables: tuple[LoggedTable, ...]


_TABLE = re.compile(
    r"(?:VFS: )?(\S.*?) hash table entries: ([0-9]{1,12}) "
    r"\((?:order:? [0-9]+, )?([0-9]{1,15}) bytes"
    r"(?: on [0-9]+ NUMA nodes, total [0-9]+ KiB)?(?:, (linear|vmalloc|vmalloc hugepage))?\)"
)
_STAMP = re.compile(r"^(?:<[0-9]+>)?(?:\[[^\]]*\] )?")


def read_boot_log(path: Path) -> BootLog:
    """Read the output of dmesg.

    Raises
    ------
    BadInput
        The file cannot be read, or holds none of these.
    """
    found, parameters, tables = None, (), []
    for _, line in read_lines(path):
        text = _STAMP.sub("", line)
        if text.startswith("Linux version ") and found is None:
            found = release(text)
        elif match := re.match(r"(?:Kernel c|C)ommand line: (.*)", text):
            parameters = tuple(match[1].split())
        elif match := _TABLE.match(text):
            tables.append(LoggedTable(match[1], int(match[2]), int(match[3]), match[4] or ""))
    if found is None and not parameters and not tables:
        raise BadInput(
            path, "no boot log: neither banner, command line nor hash tables", "save dmesg after boot"
        )
    return BootLog(found, parameters, tuple(tables))
