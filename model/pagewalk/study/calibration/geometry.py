"""Candidate TLB arrays, and the share of a chase's accesses that miss in each.

Under a cyclic order and true LRU a page misses if, and only if, more pages fall into its set than it has
ways; under random replacement a closed form gives the share (the reference's section 6.1, rules 3 and 4). A
tree of ways that are no power of two is played, and so is every array that PDEs of the host share.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]
"""Pages of a chase, and its stride in pages."""

PDE_BIT = 9
"""Lowest bit of a 4K page's number that a 2M page's has too."""

ORDERS, WARM, ROUNDS, SETTLE = 20, 200, 200, 4
"""Orders in which the pages of a set are played, and rounds of each; of a whole chase, how many times as many
rounds warm up as are counted. Ours."""

REGIONS = 1 << 15
"""Ranges of 2 MiB that scattered frames lie in: 64 GiB, as `pagewalk.linux.frames` scatters them."""

TABLES = 1 << 18
"""Frame number of the first page table; tables lie one after the other. Ours."""


class Geometry(NamedTuple):
    """A candidate TLB array.

    Attributes
    ----------
    sets, ways : int
    set_index : {"modulo", "xor", "split"}
        Plain low page-number bits; those, exclusive-or the bits above them; the low bits but one, and the
        lowest bit that 2M pages have too (Zen 3's L2 DTLB: VA[21] and VA[18:12]; the reference, MEAS-Z3).
    policy : {"lru", "tree-plru", "random"}
    shared : bool
        What walks remember lies there too (`pagewalk.hardware.machine.Guest.walks_in_stlb`), and each page's
        frame lies anywhere in memory.
    """

    sets: int
    ways: int
    set_index: Literal["modulo", "xor", "split"] = "modulo"
    policy: Literal["lru", "tree-plru", "random"] = "lru"
    shared: bool = False

    @property
    def entries(self) -> int:
        """Pages that it holds."""
        return self.sets * self.ways

    @property
    def expression(self) -> str:
        """The index as machine files write it."""
        bits = self.sets.bit_length() - 1
        if self.set_index == "xor":
            return f"VPN[{bits - 1}:0] ^ VPN[{2 * bits - 1}:{bits}]"
        return f"{{VPN[{PDE_BIT}], VPN[{bits - 2}:0]}}" if self.set_index == "split" else "modulo"


def set_numbers(g: Geometry, page: NDArray[np.int64]) -> NDArray[np.int64]:
    """Set of each page number."""
    if g.set_index == "split":
        half = g.sets >> 1
        return (page & (half - 1)) | ((page >> PDE_BIT & 1) * half)
    hashed = page ^ (page >> (g.sets.bit_length() - 1)) if g.set_index == "xor" else page
    return hashed & (g.sets - 1)


def miss_shares(geometries: Sequence[Geometry], shapes: Sequence[Shape]) -> NDArray[np.float64]:
    """Share of accesses that miss, once a chase is warm.

    Returns
    -------
    ndarray of float64, shape (geometries, shapes)
    """
    shares = np.empty((len(geometries), len(shapes)))
    for column, (pages, stride) in enumerate(shapes):
        crowds: dict[tuple[int, str], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        number = np.arange(pages, dtype=np.int64) * stride
        for row, g in enumerate(geometries):
            if g.shared:
                shares[row, column] = _played(g, number)
                continue
            if (g.sets, g.set_index) not in crowds:
                crowds[g.sets, g.set_index] = np.unique_counts(np.bincount(set_numbers(g, number)))
            crowd, times = crowds[g.sets, g.set_index]
            each = [misses_of_a_set(int(pages_in), g.ways, g.policy) for pages_in in crowd]
            shares[row, column] = float(np.dot(each, times)) / pages
    return shares


@cache
def misses_of_a_set(pages: int, ways: int, policy: str) -> float:
    """Misses in a round over the pages that share a set."""
    if pages <= ways:
        return 0.0
    if policy == "lru" or (policy == "tree-plru" and pages > 1 << (ways - 1).bit_length()):
        return float(pages)
    if policy == "tree-plru":
        draw = np.random.default_rng(1)
        one, none = np.zeros(pages, np.int64), np.zeros((0, pages), np.int64)
        orders = [draw.permutation(pages) for _ in range(ORDERS)]
        misses = [_rounds(1, ways, policy, one, none, none, order, WARM, ROUNDS) for order in orders]
        return sum(misses) / ORDERS
    share, before = 1.0, 0.0
    while abs(share - before) > 1e-6:
        share, before = 1 - (1 - 1 / ways) ** ((pages - 1) * share), share
    return pages * share


def _played(g: Geometry, number: NDArray[np.int64]) -> float:
    """Share of accesses that miss in a chase over page numbers, what walks remember among them."""
    draw = np.random.default_rng(1)
    pde = number >> PDE_BIT
    table = TABLES + pde
    beside = np.stack([pde, table, table >> PDE_BIT, draw.integers(0, REGIONS, len(number))])
    tag = len(number) + np.unique(beside + np.arange(4)[:, None] * REGIONS * 16, return_inverse=True)[1]
    order, rounds = draw.permutation(len(number)), 2 + 500 // len(number)
    sets = set_numbers(g, number), set_numbers(g, beside)
    tags = tag.reshape(beside.shape)
    return _rounds(g.sets, g.ways, g.policy, *sets, tags, order, SETTLE * rounds, rounds) / len(number)


def _rounds(
    sets: int,
    ways: int,
    policy: str,
    page_set: NDArray[np.int64],
    beside_set: NDArray[np.int64],
    beside_tag: NDArray[np.int64],
    order: NDArray[np.int64],
    warm: int,
    rounds: int,
) -> float:
    """Misses a round, through sets that are full of what ran before."""
    from pagewalk.kernels.cyclic import cyclic_misses
    from pagewalk.kernels.general.assoc import POLICIES, TAGS, TREE_PLRU, make

    number = np.arange(sets)
    table = make(np.full(sets, ways), np.full(sets, POLICIES.index(policy)), number)
    table[:, TAGS : TAGS + ways] = -2 - np.arange(ways)
    if POLICIES.index(policy) == TREE_PLRU:
        table[:, TAGS + ways :] = np.random.default_rng(2).integers(0, 2, table[:, TAGS + ways :].shape)
    return int(cyclic_misses(table, page_set, beside_set, beside_tag, order, warm, rounds)) / rounds
