"""``/proc/vmallocinfo``: all vmalloc areas of a running kernel.

Format: Linux 6.1, 6.12 and 7.3 mm/vmalloc.c, see the reference's section 7.1. It has no mark for huge areas.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import Geometry
from pagewalk.linux.layout import Area, Layout, caller_symbol, check_areas, no_runs
from pagewalk.linux.observe.lines import read_lines
from pagewalk.linux.rules.callers import asks
from pagewalk.linux.rules.releases import Release

KINDS = ("ioremap", "sparse", "vmalloc", "vmap", "user", "dma-coherent")
"""Words for an area's flags, in the order in which the kernel prints them."""

STACKS = ("kernel_clone", "dup_task_struct", "alloc_thread_stack_node", "irq_init_percpu_irqstack")
"""Callers whose areas are stacks."""

_LINE = re.compile(r"0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16}) +([0-9]{1,20})(?: (.*))?")

Addresses = Literal["real", "hashed", "zero"]


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes
    ----------
    start, end : int
        As printed: real, hashed or zero.
    size_bytes : int
        Guard page included.
    caller, module : str
        Symbol without offset, and its module; "" where none is printed.
    kind : str
        The first of `KINDS`; vm_map_ram; unpurged for an area that was freed and waits for its purge; "".
    pages : int
        Base pages of memory, also of huge areas.
    physical : int, optional
        Physical address of what ioremap mapped.
    vpages : bool
        The array of its pages is a vmalloc area of its own.
    nodes : tuple of (int, int)
        (NUMA node, base pages on it).
    """

    start: int
    end: int
    size_bytes: int
    caller: str = ""
    module: str = ""
    kind: str = ""
    pages: int = 0
    physical: int | None = None
    vpages: bool = False
    nodes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Vmallocinfo:
    """The whole file.

    Attributes
    ----------
    rows : tuple of Row
        In the order of the file; since 6.9 that is not the order of addresses.
    addresses : str
        "real"; "hashed" (kernel.kptr_restrict 0) or "zero" (2, or 1 for a reader without CAP_SYSLOG).
    where : str
        The file, for messages.
    """

    rows: tuple[Row, ...]
    addresses: Addresses
    where: str


def read_vmallocinfo(path: Path) -> Vmallocinfo:
    """Read ``/proc/vmallocinfo`` or a copy of it.

    Raises
    ------
    BadInput
        The file cannot be read, is empty, or a line is not of this format.
    """
    rows = [_row(line, f"{path}: line {number}") for number, line in read_lines(path) if line]
    if not rows:
        raise BadInput(path, "no areas in it", "save it as root: cat /proc/vmallocinfo > FILE")
    return Vmallocinfo(tuple(rows), _addresses(rows, path), str(path))


def _row(line: str, place: str) -> Row:
    match = _LINE.fullmatch(line)
    if not match:
        raise BadInput(place, f"{line[:40]!r} is no line of /proc/vmallocinfo", "save the file again")
    start, end, size = int(match[1], 16), int(match[2], 16), int(match[3])
    if not 0 < size < 1 << 63:
        raise BadInput(place, f"size {size} is impossible", "save the file again")
    words = (match[4] or "").split()
    if words[:1] == ["vm_map_ram"]:
        return Row(start, end, size, kind="vm_map_ram")
    if words[:2] == ["unpurged", "vm_area"]:
        return Row(start, end, size, kind="unpurged")
    caller = words.pop(0) if words and "+0x" in words[0] else ""
    module = words.pop(0)[1:-1] if words and re.fullmatch(r"\[.+\]", words[0]) else ""
    return Row(
        start,
        end,
        size,
        caller_symbol(caller),
        module,
        next((word for word in words if word in KINDS), ""),
        _number(words, "pages=", 10, place) or 0,
        _number(words, "phys=0x", 16, place),
        "vpages" in words,
        tuple(_node(word, place) for word in words if re.match(r"N[0-9]+=", word)),
    )


def _number(words: list[str], key: str, base: int, place: str) -> int | None:
    text = next((word.removeprefix(key) for word in words if word.startswith(key)), None)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9a-f]{1,16}" if base == 16 else r"[0-9]{1,18}", text):
        raise BadInput(place, f"{(key + text)[:40]!r} holds no number", "save the file again")
    return int(text, base)


def _node(word: str, place: str) -> tuple[int, int]:
    match = re.fullmatch(r"N([0-9]{1,5})=([0-9]{1,18})", word)
    if not match:
        raise BadInput(place, f"{word[:40]!r} holds no number of pages", "save the file again")
    return int(match[1]), int(match[2])


def _addresses(rows: list[Row], path: Path) -> Addresses:
    """Kernel addresses have their highest bit set; hashes are printed with 32 bits."""
    starts = [row.start for row in rows]
    if not any(starts):
        return "zero"
    if all(start >> 63 for start in starts):
        return "real"
    if not any(start >> 32 for start in starts):
        return "hashed"
    raise BadInput(path, "some addresses are hashed and some are not", "save the file again, in one go")


def is_huge(row: Row, addresses: Addresses, geometry: Geometry, kernel: Release) -> bool | None:
    """Whether an area is mapped by PMD leaves, as far as the file tells.

    The kernel rounds huge areas up to whole PMDs and aligns them, so all else is out. What is left is huge
    if its caller is known to ask for it in this release, and unknown if nobody wrote that down.

    Returns
    -------
    bool or None
        None: unknown. A yes may still be wrong: the attempt may have fallen back (reference, section 3.3).
    """
    pmd = 1 << geometry.leaf("PMD").shift
    payload = row.size_bytes - (1 << geometry.base_shift)
    if row.kind != "vmalloc" or payload < pmd or payload % pmd:
        return False
    if addresses == "real" and row.start % pmd:
        return False
    return asks(row.caller, kernel)


def to_layout(info: Vmallocinfo, geometry: Geometry, kernel: Release) -> Layout:
    """Areas as a layout to replay a trace over; it knows no page tables.

    Raises
    ------
    BadInput
        The addresses are not real, or impossible.
    """
    if info.addresses != "real":
        mend = "save it as root with sysctl kernel.kptr_restrict=1 (0 hashes, 2 hides)"
        raise BadInput(info.where, f"its addresses are {info.addresses}, so areas cannot be placed", mend)
    areas, unknown = [], 0
    for row in info.rows:
        huge = is_huge(row, info.addresses, geometry, kernel)
        unknown += huge is None
        areas.append(
            Area(
                row.start,
                row.end,
                row.size_bytes,
                row.caller,
                "" if row.kind == "unpurged" else row.kind or "vmalloc",
                "" if row.kind == "unpurged" else "PMD" if huge else "base",
                row.caller in STACKS,
                True,
                row.module,
                row.pages,
                row.nodes,
            )
        )
    note = f"leaf sizes are inferred from sizes and callers (rules of {kernel.name})"
    if unknown:
        note += f"; {unknown} areas that may be huge count as base pages"
    return Layout(
        geometry,
        check_areas(areas, geometry, info.where),
        no_runs(),
        no_runs(),
        has_tables=False,
        notes=(note,),
    )
