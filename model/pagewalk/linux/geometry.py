"""Page-table geometries: how an architecture cuts an address into table indices, and where leaves may sit.

Source of every row: Linux arch/*/include/asm/{vmalloc,pgtable*}.h of 6.1, 6.12 and 7.3, see the
reference's section 6; arm64's 52-bit splits are from memory there ("recall").
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Leaf:
    """A leaf size.

    Attributes
    ----------
    name : str
        base, contPTE, PMD, PUD.
    shift : int
        log2 of its size in bytes.
    level : int
        Level of the table that holds it, counted from the bottom: 1 is the PTE table.
    vmalloc : bool
        Whether vmalloc can make it (the reference's section 3.3: never PUD).
    """

    name: str
    shift: int
    level: int
    vmalloc: bool = True


@dataclass(frozen=True)
class Geometry:
    """How one architecture and mode cuts a virtual address.

    Attributes
    ----------
    name : str
    index_bits : tuple of int
        Index bits of each table level, from the bottom (PTE) to the top.
    leaves : tuple of Leaf
        From small to large; the first is the base page.
    vmalloc_start, vmalloc_end : int
        The vmalloc space without KASLR; end exclusive.
    entry_bytes : int
        Size of a table entry.
    """

    name: str
    index_bits: tuple[int, ...]
    leaves: tuple[Leaf, ...]
    vmalloc_start: int
    vmalloc_end: int
    entry_bytes: int = 8

    @property
    def base_shift(self) -> int:
        """log2 of the base page in bytes."""
        return self.leaves[0].shift

    @property
    def levels(self) -> int:
        """Number of table levels."""
        return len(self.index_bits)

    def entry_shift(self, level: int) -> int:
        """log2 of the bytes that one entry of a table at `level` covers (level 1: the base page)."""
        return self.base_shift + sum(self.index_bits[: level - 1])

    def leaf(self, name: str) -> Leaf:
        """The leaf size of that name."""
        return next(leaf for leaf in self.leaves if leaf.name == name)

    def leaf_level(self, shift: NDArray[np.uint8]) -> NDArray[np.int8]:
        """Level of the table that holds a leaf of each given shift."""
        level = np.ones(len(shift), np.int8)
        for leaf in self.leaves:
            level[shift == leaf.shift] = leaf.level
        return level
