"""``/proc/meminfo``, ``/proc/vmstat``, ``/proc/buddyinfo`` and ``/proc/pagetypeinfo``: counters of memory.

Formats: see the reference's section 7.4.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.linux.observe.lines import read_lines

_MOST = 1 << 62
"""No counter is larger; sums of them stay within 64 bits."""


def _count(text: str, place: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) >= _MOST:
        raise BadInput(place, f"{text[:40]!r} is no count", "save the file again")
    return int(text)


def read_meminfo(path: Path) -> dict[str, int]:
    """Read ``/proc/meminfo``: name -> bytes (counts of huge pages stay counts)."""
    values = {}
    for number, line in read_lines(path):
        place = f"{path}: line {number}"
        match = re.fullmatch(r"([A-Za-z0-9_()]+): +([0-9]+)( kB)?", line)
        if not match:
            raise BadInput(place, f"{line[:40]!r} is no line of /proc/meminfo", "save the file again")
        values[match[1]] = _count(match[2], place) * (1024 if match[3] else 1)
    if "MemTotal" not in values:
        raise BadInput(path, "no MemTotal in it", "save /proc/meminfo")
    return values


def read_vmstat(path: Path) -> dict[str, int]:
    """Read ``/proc/vmstat``: name -> count."""
    values = {}
    for number, line in read_lines(path):
        place = f"{path}: line {number}"
        match = re.fullmatch(r"([a-z0-9_]+) (-?[0-9]+)", line)
        if not match:
            raise BadInput(place, f"{line[:40]!r} is no line of /proc/vmstat", "save the file again")
        values[match[1]] = _count(match[2].removeprefix("-"), place) * (-1 if match[2][0] == "-" else 1)
    if not values:
        raise BadInput(path, "empty", "save /proc/vmstat")
    return values


Zone = tuple[int, str]
"""(NUMA node, zone name)."""


def read_buddyinfo(path: Path) -> dict[Zone, tuple[int, ...]]:
    """Read ``/proc/buddyinfo``: zone -> free blocks of each order, from 0."""
    zones: dict[Zone, tuple[int, ...]] = {}
    for number, line in read_lines(path):
        place = f"{path}: line {number}"
        match = re.fullmatch(r"Node ([0-9]{1,5}), zone +(\w+)((?: +[0-9]+)+)", line)
        if not match:
            raise BadInput(place, f"{line[:40]!r} is no line of /proc/buddyinfo", "save the file again")
        zone = int(match[1]), match[2]
        if zone in zones:
            raise BadInput(place, f"node {zone[0]} has a second zone {zone[1]}", "save the file again")
        zones[zone] = tuple(_count(word, place) for word in match[3].split())
    return _of_one_length(zones, path, "/proc/buddyinfo")


def _of_one_length(zones: dict[Zone, tuple[int, ...]], path: Path, name: str) -> dict[Zone, tuple[int, ...]]:
    if not zones:
        raise BadInput(path, "empty", f"save {name}")
    if len({len(counts) for counts in zones.values()}) > 1:
        raise BadInput(path, "zones with different numbers of orders", "save the file again")
    return zones


def free_blocks(counts: tuple[int, ...], order: int) -> int:
    """How many blocks of an order can be had without compaction: larger ones can be cut up."""
    return sum(count << (at - order) for at, count in enumerate(counts) if at >= order)


@dataclass(frozen=True)
class Pagetypeinfo:
    """``/proc/pagetypeinfo``.

    Attributes
    ----------
    pageblock_order : int
        log2 of the base pages of a pageblock, the grain of migrate types.
    free : dict of (int, str) to dict of str to tuple of int
        Zone -> migrate type -> free blocks of each order.
    pageblocks : dict of (int, str) to dict of str to int
        Zone -> migrate type -> pageblocks of that type.
    """

    pageblock_order: int
    free: dict[Zone, dict[str, tuple[int, ...]]]
    pageblocks: dict[Zone, dict[str, int]]


def read_pagetypeinfo(path: Path) -> Pagetypeinfo:
    """Read ``/proc/pagetypeinfo``; counts of the form ``>100000`` are taken as 100000.

    Raises
    ------
    BadInput
        A line is not of this format, or a part of the file is missing.
    """
    order, types = -1, []
    free: dict[Zone, dict[str, tuple[int, ...]]] = {}
    blocks: dict[Zone, dict[str, int]] = {}
    for number, line in read_lines(path):
        place = f"{path}: line {number}"
        if match := re.fullmatch(r"Page block order: ([0-9]{1,2})", line):
            order = int(match[1])
        elif match := re.fullmatch(r"Node +([0-9]{1,5}), zone +(\w+), type +(\w+)((?: +>?[0-9]+)+)", line):
            counts = tuple(_count(word.removeprefix(">"), place) for word in match[4].split())
            free.setdefault((int(match[1]), match[2]), {})[match[3]] = counts
        elif line.startswith("Number of blocks type"):
            types = line.split()[4:]
        elif match := re.fullmatch(r"Node +([0-9]{1,5}), zone +(\w+)((?: +[0-9]+)+)", line):
            numbers = [_count(word, place) for word in match[3].split()]
            if len(numbers) != len(types):
                raise BadInput(place, f"{len(numbers)} counts for {len(types)} types", "save the file again")
            blocks[int(match[1]), match[2]] = dict(zip(types, numbers, strict=True))
        elif line and not line.startswith(("Pages per block:", "Free pages count per migrate type")):
            raise BadInput(place, f"{line[:40]!r} is no line of /proc/pagetypeinfo", "save the file again")
    if order < 0 or not free or set(free) != set(blocks):
        raise BadInput(path, "incomplete", "save all of /proc/pagetypeinfo, as root")
    return Pagetypeinfo(order, free, blocks)
