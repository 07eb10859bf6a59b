"""Dictionary-encoding of addresses: each distinct page is numbered by its first appearance.

Pages are looked up in blocks of neighbours, the blocks in an open-addressed hash table that is kept at most a
quarter full: few loads, few mispredictions, one look-up where 64 accesses stay in one page. The loop calls
no function that takes arrays: numba would count references to them, atomically, for each access.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru.vector import RUN, same_page

NONE = -1
"""What a slot without a block, and a place without a page, hold."""

SPARSE = 4
"""Slots for each block. Ours to choose, as is the size of a block: a lone page costs 120 bytes."""

BLOCK_SHIFT = 4
BLOCK_PAGES = 1 << BLOCK_SHIFT


class Numbers(NamedTuple):
    """The distinct pages so far."""

    region: NDArray[np.int64]
    """int64 (slots,), a power of two: page number >> 4 of the block that sits here, or NONE."""
    block: NDArray[np.int32]
    """int32 (slots,): the block."""
    number: NDArray[np.int32]
    """int32 (blocks * 16,): number of each page of each block, or NONE."""
    page: NDArray[np.int64]
    """int64: page numbers, 0 to 2**52 - 1, by number."""
    used: NDArray[np.int64]
    """int64 (2,): pages and blocks so far."""


def make_numbers(pages: int, blocks: int) -> Numbers:
    """An empty dictionary with room for that many pages and blocks, a power of two of at least 64 each."""
    return Numbers(
        np.full(SPARSE * blocks, NONE, np.int64),
        np.empty(SPARSE * blocks, np.int32),
        np.full(blocks * BLOCK_PAGES, NONE, np.int32),
        np.empty(pages, np.int64),
        np.zeros(2, np.int64),
    )


@inline
def _home(region: int) -> int:
    """Where the search for a region begins, before it is cut to the table. The products stay below 2**63."""
    mixed = (region & 0x3FFFFFF) * 0x9E3779B1 + (region >> 26) * 0x85EBCA6B
    return mixed ^ mixed >> 29


@jit
def number_pages(address: NDArray[np.int64], numbers: Numbers, out: NDArray[np.uint32]) -> int:
    """Write the number of each address's page to `out`.

    Parameters
    ----------
    address : ndarray of int64
        Whole 64-bit addresses, seen as signed.
    numbers : Numbers
        Grows as new pages appear.
    out : ndarray of uint32

    Returns
    -------
    int
        How many were done; it stops early where `numbers` might not have room for 64 new pages.
    """
    region_in, block_in, number_of, page_of, used = numbers
    mask = np.int64(len(region_in) - 1)
    start = 0
    while start < len(address):
        if used[0] + RUN > len(page_of) or (used[1] + RUN) * BLOCK_PAGES > len(number_of):
            break
        end = min(start + RUN, len(address))
        alike = start + RUN <= len(address) and same_page(address, start)
        for i in range(np.uint64(start), np.uint64(start + 1 if alike else end)):
            page = address[i] >> 12 & 0xFFFFFFFFFFFFF
            region = page >> BLOCK_SHIFT
            slot = np.uint64(_home(region) & mask)
            while region_in[slot] != region:
                if region_in[slot] == NONE:
                    region_in[slot], block_in[slot] = region, used[1]
                    used[1] += 1
                    break
                slot = np.uint64(np.int64(slot) + 1 & mask)
            place = np.uint64(np.int64(block_in[slot]) << BLOCK_SHIFT | page & BLOCK_PAGES - 1)
            number = number_of[place]
            if number == NONE:
                number = np.int32(used[0])
                number_of[place] = number
                page_of[number] = page
                used[0] += 1
            out[i] = number
        if alike:
            out[start:end] = out[start]
        start = end
    return start


def with_more_room(numbers: Numbers) -> Numbers:
    """The same dictionary with twice the room."""
    pages, blocks = len(numbers.page), len(numbers.number) // BLOCK_PAGES
    larger = make_numbers(2 * pages, 2 * blocks)
    known = numbers.page[: numbers.used[0]] << 12
    number_pages(known, larger, np.empty(len(known), np.uint32))
    return larger
