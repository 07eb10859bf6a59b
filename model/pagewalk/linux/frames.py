"""Which frame lies behind a page: as recorded, or one that we choose.

Frames are physical page numbers, physical address >> 12, whatever the base page.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.geometry import Geometry
from pagewalk.linux.layout import PHYSICAL_BITS, UNKNOWN_FRAME, Layout

MEMORY_BITS = 36
"""Frames that we choose are scattered over 64 GiB, or over four times what they need: how far apart they lie
decides how many entries a host's tables need for them. Ours; the guests of the recorded traces had 64 GiB."""


class Recorded(NamedTuple):
    """What the recorded page tables say of each page; all arrays have the pages' shape.

    Attributes
    ----------
    found : ndarray of bool
        A leaf maps the page.
    framed : ndarray of bool
        Its frame is known.
    shift : ndarray of uint8
        log2 of the leaf's size in bytes; the base page where nothing was found.
    frame : ndarray of int64
        Of no meaning where it is not known.
    contiguous_shift : ndarray of uint8
        As in `pagewalk.linux.mapping.Mapping`.
    """

    found: NDArray[np.bool_]
    framed: NDArray[np.bool_]
    shift: NDArray[np.uint8]
    frame: NDArray[np.int64]
    contiguous_shift: NDArray[np.uint8]


def recorded(layout: Layout, page: NDArray[np.int64]) -> Recorded:
    """Look pages (address >> 12) up in the tables of the beginning, else in those of the end."""
    begin = _look_up(layout.runs, layout.geometry, page)
    if begin.found.all():
        return begin
    end = _look_up(layout.runs_end, layout.geometry, page)
    return Recorded(
        begin.found | end.found,
        np.where(begin.found, begin.framed, end.framed),
        np.where(begin.found, begin.shift, end.shift),
        np.where(begin.found, begin.frame, end.frame),
        np.where(begin.found, begin.contiguous_shift, end.contiguous_shift),
    )


def _look_up(runs: NDArray[np.void], geometry: Geometry, page: NDArray[np.int64]) -> Recorded:
    if not len(runs):
        base = np.full(len(page), geometry.base_shift, np.uint8)
        none = np.zeros(len(page), bool)
        return Recorded(none, none, base, np.zeros(len(page), np.int64), base)
    first = (runs["va"] >> np.uint64(12)).astype(np.int64)
    beyond = first + (runs["count"].astype(np.int64) << (runs["shift"].astype(np.int64) - 12))
    delta = (runs["pa"] >> np.uint64(12)).astype(np.int64) - first
    run = np.maximum(np.searchsorted(first, page, "right") - 1, 0)
    first, beyond, delta = first[run], beyond[run], delta[run]
    found = (first <= page) & (page < beyond)
    framed = found & (runs["pa"][run] != UNKNOWN_FRAME)
    shift = np.where(found, runs["shift"][run], geometry.base_shift).astype(np.uint8)
    contiguous_shift = shift.copy()
    for order in range(1, int(np.max(beyond - first)).bit_length()):
        block = page >> order << order
        fits = (
            framed & (block >= first) & (block + (1 << order) <= beyond) & (delta & ((1 << order) - 1) == 0)
        )
        contiguous_shift = np.where(fits, np.maximum(contiguous_shift, order + 12), contiguous_shift)
    return Recorded(found, framed, shift, page + delta, contiguous_shift.astype(np.uint8))


def scattered_frames(
    page: NDArray[np.int64],
    leaf_shift: NDArray[np.uint8],
    geometry: Geometry,
    spaces: NDArray[np.uint16] | None = None,
) -> NDArray[np.int64]:
    """Frames of our choice: each leaf gets a naturally aligned block of its own, scattered.

    The place of a block follows from a hash of its virtual page number, so it does not depend on the order
    of the pages. Where two hashes meet, one block moves up to the next free place. They lie above the
    highest possible physical address, where no recorded frame can be, one range for each leaf size.

    Parameters
    ----------
    page : ndarray of int64
        Virtual page number, address >> 12.
    leaf_shift : ndarray of uint8
        Leaf sizes of `geometry`.
    geometry : Geometry
    spaces : ndarray of uint16, optional
        Address space; equal pages of different spaces get different frames.
    """
    frame = np.empty(len(page), np.int64)
    space = np.zeros(len(page), np.uint64) if spaces is None else spaces.astype(np.uint64)
    for number, leaf in enumerate(geometry.leaves, start=1):
        mine = np.flatnonzero(leaf_shift == leaf.shift)
        if not len(mine):
            continue
        order = leaf.shift - 12
        leaf_number = (page[mine] >> order).astype(np.uint64) & np.uint64((1 << 48) - 1)
        keys, key = np.unique(leaf_number | space[mine] << np.uint64(48), return_inverse=True)
        window_bits = max(MEMORY_BITS - 12 - order, len(keys).bit_length() + 2)
        slot = _distinct((_hash(keys) >> np.uint64(64 - window_bits)).astype(np.int64))
        block = (number << PHYSICAL_BITS - 12) + (slot[key] << order)
        frame[mine] = block + (page[mine] & ((1 << order) - 1))
    return frame


def _hash(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014)."""
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def _distinct(slot: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move slots up until all differ: each to the first free one at or above it, in ascending order."""
    order = np.argsort(slot, kind="stable")
    rank = np.arange(len(slot))
    result = np.empty_like(slot)
    result[order] = np.maximum.accumulate(slot[order] - rank) + rank
    return result
