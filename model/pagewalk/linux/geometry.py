"""Page-table geometries: how an architecture cuts an address into table indices, and where leaves may sit.

Source of every row: Linux arch/*/include/asm/{vmalloc,pgtable*,memory}.h of 6.12 and 7.3, see the
reference's sections 3.5 and 6; the 52-bit splits of arm64 are "recall" there (they follow from
the 52 bits: what is left over above full tables goes to the top one).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput


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

    def table_bytes(self, level: int) -> int:
        """Size of a table at `level` in bytes."""
        return self.entry_bytes << self.index_bits[level - 1]

    def leaf(self, name: str) -> Leaf:
        """The leaf size of that name; BadInput where the architecture has none."""
        for leaf in self.leaves:
            if leaf.name == name:
                return leaf
        sizes = ", ".join(leaf.name for leaf in self.leaves)
        raise BadInput(self.name, f"this page-table geometry has no {name} leaf", f"it has {sizes}")

    def leaf_level(self, shift: NDArray[np.uint8]) -> NDArray[np.int8]:
        """Level of the table that holds a leaf of each given shift."""
        level = np.ones(len(shift), np.int8)
        for leaf in self.leaves:
            level[shift == leaf.shift] = leaf.level
        return level


TIB, GIB, MIB = 1 << 40, 1 << 30, 1 << 20
TOP = 1 << 64
"""One past the highest address; addresses written as ``-x`` in kernel headers are ``TOP - x`` here."""


def _leaves(base: int, pmd: int, *, contpte: int = 0, pud: int = 0) -> tuple[Leaf, ...]:
    """Leaf sizes, given as shifts; 0 where there is none."""
    leaves = [Leaf("base", base, 1)]
    if contpte:
        leaves.append(Leaf("contPTE", contpte, 1))
    leaves.append(Leaf("PMD", pmd, 2))
    if pud:
        leaves.append(Leaf("PUD", pud, 3, vmalloc=False))
    return tuple(leaves)


def _arm64(name: str, index_bits: tuple[int, ...], leaves: tuple[Leaf, ...]) -> Geometry:
    """Arm64: vmalloc from MODULES_END up to 8 MiB below vmemmap (arch/arm64/include/asm/{memory,pgtable}.h).

    The kernel's half is cut in two at ``-(1 << (min(bits, 48) - 1))``: linear map below;
    above it modules (2 GiB), vmalloc, and vmemmap, which has 64 bytes for each base page of the linear map
    and ends 1 GiB below the top.
    """
    base_shift = leaves[0].shift
    address_bits = base_shift + sum(index_bits)
    middle = TOP - (1 << (min(address_bits, 48) - 1))
    linear_bytes = middle - (TOP - (1 << address_bits))
    vmemmap_start = TOP - GIB - (linear_bytes >> (base_shift - 6))
    return Geometry(name, index_bits, leaves, middle + 2 * GIB, vmemmap_start - 8 * MIB)


_ARM64_4K = _leaves(12, 21, contpte=16, pud=30)
_ARM64_16K = _leaves(14, 25, contpte=21)
_ARM64_64K = _leaves(16, 29, contpte=21)
_4K_2M_1G = _leaves(12, 21, pud=30)

_ROWS = (
    Geometry("x86-64", (9,) * 4, _4K_2M_1G, 0xFFFF_C900_0000_0000, 0xFFFF_E900_0000_0000),
    Geometry("x86-64-5level", (9,) * 5, _4K_2M_1G, 0xFFA0_0000_0000_0000, 0xFFD2_0000_0000_0000),
    _arm64("arm64-4k", (9, 9, 9, 9), _ARM64_4K),
    _arm64("arm64-4k-39bit", (9, 9, 9), _ARM64_4K),
    _arm64("arm64-4k-52bit", (9, 9, 9, 9, 4), _ARM64_4K),
    _arm64("arm64-16k", (11, 11, 11, 1), _ARM64_16K),
    _arm64("arm64-16k-47bit", (11, 11, 11), _ARM64_16K),
    _arm64("arm64-64k", (13, 13, 6), _ARM64_64K),
    _arm64("arm64-64k-42bit", (13, 13), _ARM64_64K),
    _arm64("arm64-64k-52bit", (13, 13, 10), _ARM64_64K),
    Geometry("powerpc64-radix-4k", (9, 9, 9, 13), _4K_2M_1G, 0xC008 << 48, 0xC00A << 48),
    Geometry("powerpc64-radix-64k", (5, 9, 9, 13), _leaves(16, 21, pud=30), 0xC008 << 48, 0xC00A << 48),
    Geometry("riscv-sv39", (9,) * 3, _4K_2M_1G, 0xFFFF_FFC6_0000_0000, 0xFFFF_FFD6_0000_0000),
    Geometry("riscv-sv48", (9,) * 4, _4K_2M_1G, 0xFFFF_8F80_0000_0000, 0xFFFF_AF80_0000_0000),
    Geometry("riscv-sv57", (9,) * 5, _4K_2M_1G, 0xFF20 << 48, 0xFF60 << 48),
)

GEOMETRIES: dict[str, Geometry] = {row.name: row for row in _ROWS}
"""Every geometry by name."""


def geometry(name: str) -> Geometry:
    """The geometry of that name; BadInput on an unknown one."""
    if name not in GEOMETRIES:
        raise BadInput(f"geometry {name!r}", "no such page-table geometry", f"one of {', '.join(GEOMETRIES)}")
    return GEOMETRIES[name]
