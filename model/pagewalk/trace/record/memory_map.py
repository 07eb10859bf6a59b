"""Where a running process's memory lies, and which of it huge pages map."""

import fcntl
import os
import re
import struct
from bisect import bisect_left
from pathlib import Path
from typing import NamedTuple

import numpy as np

PMD_SHIFT = 21
"""Huge pages of x86-64, and of arm64 and riscv with base pages of 4 KiB."""

_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ (\S+) (\d+) *(.*)")
"""/proc/PID/maps: address range, permissions, offset, device, inode, name (man 5 proc_pid_maps)."""

PAGEMAP_SCAN, PAGE_IS_HUGE = 0xC0606610, 1 << 6
"""Linux 6.7 include/uapi/linux/fs.h: _IOWR('f', 16, struct pm_scan_arg); a page that a PMD leaf maps."""

SCAN = struct.Struct("=12Q")
"""pm_scan_arg: size, flags, start, end, where the walk ended, vector, its length, most pages, 4 masks."""


class Piece(NamedTuple):
    """A range of memory of one kind."""

    start: int
    end: int
    name: str
    kind: str
    """anonymous, or file."""


class MemoryMap:
    """What has been seen of a process's memory: for each address, what was there first.

    Attributes
    ----------
    pieces : list of Piece
        Ascending, disjoint.
    huge : set of int
        Addresses >> 21 of what PMD leaves mapped at some time.
    knows_huge : bool
        Whether the kernel could be asked for them.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.huge: set[int] = set()
        self.knows_huge = True

    def look(self, maps: str) -> None:
        """Add what a ``/proc/PID/maps`` shows."""
        for line in maps.splitlines():
            found = _LINE.fullmatch(line)
            if found is None:
                continue
            start, end, _, _, inode, name = found.groups()
            kind = "anonymous" if inode == "0" and name not in ("[vvar]", "[vdso]", "[vsyscall]") else "file"
            self._add(Piece(int(start, 16), int(end, 16), name, kind))

    def look_for_huge(self, pid: int) -> None:
        """Add which of a process's memory PMD leaves map now; the kernel must be Linux 6.7 or later."""
        try:
            file = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
        except OSError:
            return
        regions = np.zeros((1 << 12, 3), np.uint64)
        start, end = 0, (1 << 47) - (1 << 12)
        try:
            while start < end:
                wanted = 0, PAGE_IS_HUGE, 0, PAGE_IS_HUGE  # inverted, all of, any of, told
                there = regions.ctypes.data, len(regions), 0
                arguments = bytearray(SCAN.pack(SCAN.size, 0, start, end, 0, *there, *wanted))
                count = fcntl.ioctl(file, PAGEMAP_SCAN, arguments)
                for low, high, _ in regions[:count].tolist():
                    self.huge.update(range(low >> PMD_SHIFT, high >> PMD_SHIFT))
                start = SCAN.unpack(arguments)[4]
        except OSError:
            self.knows_huge = False
        finally:
            os.close(file)

    def _add(self, piece: Piece) -> None:
        """Add the parts of a piece where nothing has been yet."""
        at = bisect_left(self.pieces, piece.start, key=lambda each: each.end)
        start = piece.start
        while start < piece.end:
            while at < len(self.pieces) and self.pieces[at].end <= start:
                at += 1
            following = self.pieces[at].start if at < len(self.pieces) else piece.end
            end = min(piece.end, following)
            if start < end:
                before = self.pieces[at - 1] if at else None
                if before is not None and before.end == start and before[2:] == piece[2:]:
                    self.pieces[at - 1] = before._replace(end=end)
                else:
                    self.pieces.insert(at, piece._replace(start=start, end=end))
                    at += 1
            start = self.pieces[at].end if at < len(self.pieces) else piece.end


def areas(memory: MemoryMap, touched: set[int]) -> list[dict[str, object]]:
    """What a trace folder's ``regions.json`` says of a process's memory.

    Parameters
    ----------
    memory : MemoryMap
    touched : set of int
        Addresses >> 21 that the trace touches; other memory is left out.

    Returns
    -------
    list of dict
        For each piece, cut where PMD leaves begin and end: start and end as hex strings, bytes, caller (its
        name), kind, mapping ("2M" or "4K").
    """
    found: list[dict[str, object]] = []
    for piece in memory.pieces:
        blocks = range(piece.start >> PMD_SHIFT, (piece.end - 1 >> PMD_SHIFT) + 1)
        if not any(block in touched for block in blocks):
            continue
        start = piece.start
        while start < piece.end:
            huge = start >> PMD_SHIFT in memory.huge
            end = start
            while end < piece.end and (end >> PMD_SHIFT in memory.huge) is huge:
                end = min((end >> PMD_SHIFT) + 1 << PMD_SHIFT, piece.end)
            found.append(
                {
                    "start": hex(start),
                    "end": hex(end),
                    "bytes": end - start,
                    "caller": Path(piece.name).name or "[anonymous]",
                    "kind": piece.kind,
                    "mapping": "2M" if huge else "4K",
                    "is_stack": False,
                }
            )
            start = end
    return found
