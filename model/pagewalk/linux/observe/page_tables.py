"""Kernel page tables as debugfs dumps them: which leaf maps every kernel address.

x86: ``page_tables/kernel``; arm64 and powerpc: ``kernel_page_tables``. They need CONFIG_PTDUMP_DEBUGFS and
root. Formats: Linux 7.3 arch/x86/mm/dump_pagetables.c, arch/arm64/mm/ptdump.c, arch/powerpc/mm/ptdump, see
the reference's section 7.3. Neighbouring entries of one level with equal flags share a line.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import Geometry
from pagewalk.linux.layout import LEAF_RUN, UNKNOWN_FRAME, Layout, check_runs, no_runs
from pagewalk.linux.observe.lines import read_lines

LINEAR = ("Low Kernel Mapping", "Linear Mapping start", "Linear Mapping")
"""Headers of the direct map on x86 and arm64; the next header ends it."""

_UNITS = {unit: 10 * power for power, unit in enumerate("BKMGTPE")}
_RANGE = "0x([0-9a-f]{16})-0x([0-9a-f]{16})"
_X86 = re.compile(_RANGE + " +([0-9]+)([BKMGTPE]) (.*)(pgd|p4d|pud|pmd|pte)")
_ARM64 = re.compile(_RANGE + " +([0-9]+)([BKMGTPE]) (PGD|P4D|PUD|PMD|PTE)( .*)?")
_POWERPC = re.compile(_RANGE + r" [ \[]0x([0-9a-f]{16})[ \]] *([0-9]+)([KMGTPE]) +(PGD|PUD|PMD|PTE)( .*)?")


class _Run(NamedTuple):
    """A line: a range, and the leaves that map it; `leaf` "" where there are none."""

    start: int
    end: int
    physical: int
    leaf: str
    writable: bool
    executable: bool
    is_global: bool


def read_page_tables(path: Path, geometry: Geometry) -> Layout:
    """Read a dump, as a layout without areas (`dataclasses.replace` adds those of a vmallocinfo).

    Frames are known where a powerpc dump tells them, and in the direct map (counted from the start of
    memory). Elsewhere a mapping chooses them.

    Parameters
    ----------
    path : Path
    geometry : Geometry
        Of the kernel that wrote it; its name tells the format of the lines.

    Raises
    ------
    BadInput
        The file cannot be read, has no leaf, or a line is not of that format.
    """
    read = _reader(geometry)
    rows = []
    header, linear_start = "", -1
    for number, line in read_lines(path):
        place = f"{path}: line {number}"
        if title := re.fullmatch(r"---\[ (.+) \]---", line):
            header, linear_start = title[1], -1
        elif line and not line.startswith("... "):
            run = read(line, place)
            if header in LINEAR and linear_start < 0:
                linear_start = run.start >> 30 << 30
            if run.leaf:
                rows.append(_row(run, linear_start, geometry, place))
    if not rows:
        raise BadInput(path, "no leaf in it", "save it as root, from debugfs")
    return Layout(geometry, (), check_runs(np.array(rows, LEAF_RUN), geometry, path), no_runs())


def _row(run: _Run, linear_start: int, geometry: Geometry, place: str) -> tuple[int, ...]:
    shift = geometry.leaf(run.leaf).shift
    count, rest = divmod(run.end - run.start, 1 << shift)
    if rest or not 0 < count < 1 << 32:
        raise BadInput(place, f"no whole number of {run.leaf} leaves", f"is it a dump of {geometry.name}?")
    physical = run.physical
    if physical == UNKNOWN_FRAME and linear_start >= 0:
        physical = run.start - linear_start
    return run.start, physical, count, shift, run.writable, run.executable, run.is_global


def _reader(geometry: Geometry) -> Callable[[str, str], _Run]:
    for prefix, read in (("x86", _x86), ("arm64", _arm64), ("powerpc64", _powerpc)):
        if geometry.name.startswith(prefix):
            return read
    raise BadInput(f"geometry {geometry.name}", "its dumps cannot be read", "x86, arm64 and powerpc64 can")


def _refused(line: str, place: str, of: str) -> BadInput:
    return BadInput(place, f"{line[:40]!r} is no line of {of} page-table dump", "check file and geometry")


def _run(
    leaf: str, words: Sequence[str], place: str, flags: tuple[bool, bool, bool], physical: int = UNKNOWN_FRAME
) -> _Run:
    """A line of words start, last or end, size and unit; an end of 0 is that of the address space."""
    start, end = int(words[0], 16), int(words[1], 16)
    end += end & 1  # powerpc prints the last address
    end = end or 1 << 64
    if leaf and int(words[2]) << _UNITS[words[3]] != end - start:
        raise BadInput(place, f"size {words[2]}{words[3]} is not that of the range", "save the dump again")
    return _Run(start, end, physical, leaf, *flags)


def _x86(line: str, place: str) -> _Run:
    match = _X86.fullmatch(line)
    if not match:
        raise _refused(line, place, "an x86")
    flags, level = match[5].split(), match[6]
    leaf = ""
    if level == "pte" and ("RW" in flags or "ro" in flags):
        leaf = "base"
    elif "PSE" in flags:
        leaf = {"pmd": "PMD", "pud": "PUD"}.get(level, "")
    return _run(leaf, match.groups()[:4], place, ("RW" in flags, "x" in flags, "GLB" in flags))


def _arm64(line: str, place: str) -> _Run:
    match = _ARM64.fullmatch(line)
    if not match:
        raise _refused(line, place, "an arm64")
    level, flags = match[5], (match[6] or "").split()
    leaf = ""
    if flags and "F" not in flags:
        if level == "PTE":
            leaf = "contPTE" if "CON" in flags else "base"
        elif "BLK" in flags:
            leaf = {"PMD": "PMD", "PUD": "PUD"}.get(level, "")
    return _run(leaf, match.groups()[:4], place, ("RW" in flags, "x" in flags, "NG" not in flags))


def _powerpc(line: str, place: str) -> _Run:
    match = _POWERPC.fullmatch(line)
    if not match:
        raise _refused(line, place, "a powerpc64")
    level, flags = match[6], (match[7] or "").lower().split()
    leaf = ""
    if "valid" in flags or "present" in flags:
        if level == "PTE":
            leaf = "base"
        elif "pte" in flags:
            leaf = {"PMD": "PMD", "PUD": "PUD"}.get(level, "")
    words = (match[1], match[2], match[4], match[5])
    return _run(leaf, words, place, ("w" in flags or "rw" in flags, "x" in flags, False), int(match[3], 16))
