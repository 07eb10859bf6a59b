"""Read an x86-64 guest's kernel page tables (four levels) out of the files that are its memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.layout import LEAF_RUN

PRESENT, WRITE, LARGE, GLOBAL, NO_EXEC = (np.uint64(1 << bit) for bit in (0, 1, 7, 8, 63))
FRAME = np.uint64(0x000F_FFFF_FFFF_F000)
"""Bits of a table entry: Intel SDM volume 3, section 4.5 "4-level paging and 5-level paging"."""

ESPFIX = np.uint64(0xFFFF_FF00_0000_0000)
"""64 Ki aliases of one small stack (Linux Documentation/arch/x86/x86_64/mm.rst): left out."""

LOW_END, HIGH_START = 0xC000_0000, 1 << 32
"""QEMU's "pc" machine with 3.5 GiB or more has the first 3 GiB of memory at 0 and the rest from 4 GiB on
(hw/i386/pc_piix.c); with less, all of it lies at 0."""


class Memory:
    """A guest's memory: one file for each NUMA node, in the order of physical addresses."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._words = [np.memmap(file, "<u8", mode="r").reshape(-1, 512) for file in files]
        size = sum(words.nbytes for words in self._words)
        self._low_end = LOW_END if size >= 0xE000_0000 else size

    def tables(self, physical: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The 512 entries of the tables at these addresses; none is present where there is no memory."""
        offset = physical.astype(np.int64)
        offset[(offset >= self._low_end) & (offset < HIGH_START)] = -1
        offset[offset >= HIGH_START] -= HIGH_START - self._low_end
        page = offset >> 12
        found = np.zeros((len(page), 512), np.uint64)
        for words in self._words:
            here = (page >= 0) & (page < len(words))
            found[here] = words[page[here]]
            page = np.where(page < len(words), -1, page - len(words))
        return found


def kernel_leaves(memory: Memory, root: int) -> NDArray[np.void]:
    """Leaf entries of the kernel's half, as runs.

    Parameters
    ----------
    memory : Memory
    root : int
        Physical address of the top table: CR3 without its low 12 bits.

    Returns
    -------
    ndarray of LEAF_RUN
        Ascending; one row for each run of leaves of one size and equal permissions that are contiguous in
        virtual and physical address.
    """
    table = np.array([root], np.uint64)
    start = np.zeros(1, np.uint64)
    rights = np.array([[True, True]])
    found = []
    for shift in (39, 30, 21, 12):
        entries = memory.tables(table)
        present = (entries & PRESENT) != 0
        if shift == 39:
            present[:, :256] = False
        parent, index = np.nonzero(present)
        entry = entries[parent, index]
        address = start[parent] + (index.astype(np.uint64) << np.uint64(shift))
        if shift == 39:
            address |= np.uint64(0xFFFF << 48)
        allowed = rights[parent] & np.stack([(entry & WRITE) != 0, (entry & NO_EXEC) == 0], axis=1)
        large = np.full(len(entry), shift == 12) | (((entry & LARGE) != 0) & (shift in (21, 30)))
        leaf = np.zeros(np.count_nonzero(large), LEAF_RUN)
        leaf["va"], leaf["count"], leaf["shift"] = address[large], 1, shift
        leaf["pa"] = entry[large] & FRAME & ~np.uint64((1 << shift) - 1)
        leaf["writable"], leaf["exec"] = allowed[large].T
        leaf["global"] = (entry[large] & GLOBAL) != 0
        found.append(leaf)
        deeper = ~large & (address != ESPFIX)
        table, start, rights = entry[deeper] & FRAME, address[deeper], allowed[deeper]
    return _runs(np.sort(np.concatenate(found), order="va"))


def _runs(leaves: NDArray[np.void]) -> NDArray[np.void]:
    """Join neighbours that continue each other."""
    size = np.uint64(1) << leaves["shift"].astype(np.uint64)
    alike = np.ones(max(len(leaves) - 1, 0), bool)
    for column in ("shift", "writable", "exec", "global"):
        alike &= leaves[column][1:] == leaves[column][:-1]
    for column in ("va", "pa"):
        alike &= leaves[column][1:] == leaves[column][:-1] + size[:-1]
    first = np.flatnonzero(np.append(True, ~alike)[: len(leaves)])
    runs = leaves[first]
    runs["count"] = np.diff(np.append(first, len(leaves)))
    return runs
