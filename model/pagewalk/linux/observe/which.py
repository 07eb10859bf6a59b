"""Which page tables a file of a running kernel is of, told by its addresses: no such file says so itself."""

import math
import re
from pathlib import Path

from pagewalk.linux.geometry import GEOMETRIES, Geometry
from pagewalk.linux.memory.areas import module_space
from pagewalk.linux.observe.lines import read_lines

_RANGE = re.compile(r"0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16}) ")
_ALLOC = re.compile(r"alloc_vmap_area:\s+va_start:\s*(0x[0-9a-f]{1,16}|[0-9]{1,20})\s+size=([0-9]{1,18})\b")


def geometry_of(path: Path) -> Geometry:
    """The geometry whose modules and vmalloc space begin closest below the file's lowest address.

    Of a page-table dump only the vmalloc section counts. Among geometries that begin alike, the base page
    decides: the largest one of which all starts and sizes are multiples. Without kernel addresses: x86-64.

    Parameters
    ----------
    path : Path
        A vmallocinfo, vmalloc trace events or a page-table dump.

    Returns
    -------
    Geometry

    Raises
    ------
    BadInput
        The file cannot be read, or is no text.
    """
    lowest, granule, section = 1 << 64, 0, ""
    for _, line in read_lines(path):
        if title := re.fullmatch(r"---\[ (.+) \]---", line):
            section = title[1].lower()
            continue
        start, size = _range(line)
        if size > 0 and start >> 63 and section in ("", "vmalloc() area"):
            lowest, granule = min(lowest, start), math.gcd(granule, start, size)
    begins = {g.name: min(g.vmalloc_start, module_space(g).start) for g in GEOMETRIES.values()}
    holding = [
        g
        for g in GEOMETRIES.values()
        if begins[g.name] <= lowest < g.vmalloc_end and granule % (1 << g.base_shift) == 0
    ]
    if not holding:
        return GEOMETRIES["x86-64"]
    return max(holding, key=lambda g: (begins[g.name], g.base_shift))


def _range(line: str) -> tuple[int, int]:
    """Start and size of what a line is about; a size of 0 where it is about nothing."""
    if match := _RANGE.match(line):
        start, end = int(match[1], 16), int(match[2], 16)
        return start, end + (end & 1) - start  # powerpc prints the last address
    if match := _ALLOC.search(line):
        return int(match[1], 16 if match[1].startswith("0x") else 10), int(match[2])
    return 0, 0
