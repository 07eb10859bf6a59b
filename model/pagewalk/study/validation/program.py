"""From a pattern to accesses: the pages that a program touches, in order, with what warms up before."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import SIZES
from pagewalk.linux.frames import scattered_frames
from pagewalk.linux.geometry import Geometry
from pagewalk.linux.mapping import Mapping, Region
from pagewalk.study.validation.case import Chase, Updates
from pagewalk.trace.trace import Trace, from_pages

BASE = 1 << 36
"""Where a program's memory begins: aligned to every leaf, low enough for every geometry. Ours."""

FRAMES = 1 << 18
"""Where packed memory begins, as frame number: 1 GiB. Ours."""

LINE_BYTES = 64
LEAST_MEASURED = 4096
"""Accesses of a chase that are measured at least, and that warm up before. Both are whole rounds over all
nodes, each by one of the chains; up to less than a step more where chains do not divide them. Ours."""

MOST_MEASURED = 1 << 17
"""Accesses of a chase that are measured at most, of a round that is longer: its nodes are in random order, so
any stretch is as good as another. Ours."""

SAMPLED = 1 << 16
"""Accesses of each stretch of a run that is too long to be replayed whole. Ours."""


class Program(NamedTuple):
    """Accesses of a program, the first `warm` of which only warm up; the rest is measured."""

    pages: NDArray[np.uint64]
    """Distinct pages, address >> 12."""
    page: NDArray[np.uint32]
    """Index into `pages`, for each access."""
    offset: NDArray[np.uint16]
    warm: int

    def trace(self) -> Trace:
        """All accesses, as loads."""
        return from_pages("pattern", self.pages, self.page, offset=self.offset)


def chase(
    pattern: Chase, geometry: Geometry, seed: int = 1, most: int = MOST_MEASURED, settle: int = 1
) -> Program:
    """Give the accesses of one or more chases through a random cycle.

    Parameters
    ----------
    pattern : Chase
    geometry : Geometry
    seed : int
        Of the cycle's order and the nodes' lines.
    most : int
        Accesses that are measured at most.
    settle : int
        How many times as long the warm-up is as what is measured.
    """
    count = pattern.count
    nodes = np.arange(count, dtype=np.uint64)
    words = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(2 * count)
    address = np.uint64(BASE) + nodes * np.uint64(pattern.stride)
    if pattern.line == "random":
        lines = max(min(pattern.stride, 1 << geometry.base_shift) // LINE_BYTES, 1)
        address += (words[:count] >> np.uint64(11)) % np.uint64(lines) * np.uint64(LINE_BYTES)
    order = np.argsort(words[count:], kind="stable")
    begins = np.arange(pattern.chains) * count // pattern.chains
    rounds = -(-LEAST_MEASURED // count)
    steps = -(-rounds * count // pattern.chains)
    measured = steps * pattern.chains
    each = order[(np.arange((settle + 1) * steps)[:, None] + begins) % count].ravel()
    warm = settle * measured
    return _encoded(address, each[: warm + min(measured, most)], warm)


def updates(pattern: Updates, warm: int, measured: int, seed: int = 1) -> Program:
    """Give a part of the accesses of random updates, long enough for a steady state.

    Parameters
    ----------
    pattern : Updates
    warm : int
        Accesses that only warm up.
    measured : int
        Accesses that follow.
    seed : int
        Where in the generator's sequence the part begins.
    """
    words = pattern.table // 8
    count = (warm + measured) // 2 if pattern.mirror else warm + measured
    if pattern.generator == "hpcc":
        numbers = hpcc(pattern.streams, -(-count // pattern.streams), seed).ravel()[:count]
    else:
        numbers = np.asarray(np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count))
    index = numbers % np.uint64(words)
    if pattern.mirror:
        index = np.stack([index, (np.uint64(words) - index) & np.uint64(words - 1)], axis=1).ravel()
    address = np.uint64(BASE) + np.uint64(8) * index
    touched, access = np.unique(address, return_inverse=True)
    return _encoded(touched, access, warm)


def hpcc(streams: int, steps: int, seed: int) -> NDArray[np.uint64]:
    """Numbers of HPCC RandomAccess: each stream shifts left, exclusive-or 7 if a bit fell out.

    Streams start at `seed` times 2**40 and 2**32 steps apart, far from each other.

    Returns
    -------
    ndarray of uint64, shape (steps, streams)
        In the order of the program: one step of each stream, then the next.
    """
    state = np.array([_hpcc_start((seed << 40) + (n << 32)) for n in range(streams)], np.uint64)
    numbers = np.empty((steps, streams), np.uint64)
    for step in range(steps):
        state = (state << np.uint64(1)) ^ ((state >> np.uint64(63)) * np.uint64(7))
        numbers[step] = state
    return numbers


def _hpcc_start(n: int) -> int:
    """Give the n-th number of the sequence that begins with 1: x**n modulo x**64 + x**2 + x + 1."""
    result, square = 1, 2
    while n:
        if n & 1:
            result = _times(result, square)
        square, n = _times(square, square), n >> 1
    return result


def _times(a: int, b: int) -> int:
    """Multiply two polynomials over GF(2), modulo x**64 + x**2 + x + 1."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a, b = (a << 1) ^ ((1 << 64 | 7) if a >> 63 else 0), b >> 1
    return product


def _encoded(address: NDArray[np.uint64], access: NDArray[np.intp], warm: int) -> Program:
    """Accesses as indices into `address`, turned into pages and offsets."""
    pages, page = np.unique(address >> np.uint64(12), return_inverse=True)
    offset = (address & np.uint64(0xFFF)).astype(np.uint16)
    return Program(pages, page.astype(np.uint32)[access], offset[access], warm)


def mapped(program: Program, pattern: Chase | Updates, cut: Geometry) -> Mapping:
    """The program's pages with the pattern's leaf size.

    Raises
    ------
    BadInput
        The geometry has no such leaf.
    """
    shift = SIZES[pattern.leaf]
    if shift not in [leaf.shift for leaf in cut.leaves]:
        names = {bits: name for name, bits in SIZES.items()}
        sizes = ", ".join(names[leaf.shift] for leaf in cut.leaves)
        raise BadInput(f"leaf {pattern.leaf}", f"{cut.name} has no such leaf", f"it has {sizes}")
    page = program.pages.astype(np.int64)
    leaf_shift = np.full(len(page), shift, np.uint8)
    if pattern.frames == "scattered":
        frame = scattered_frames(page, leaf_shift, cut)
    elif pattern.frames == "pairs":
        order = shift - 12
        leaf = np.unique(page >> order, return_inverse=True)[1]
        pair = scattered_frames(leaf >> 1 << order, leaf_shift, cut) >> order
        frame = ((2 * pair + (leaf & 1)) << order) + (page & ((1 << order) - 1))
    elif pattern.frames == "filled" or isinstance(pattern, Updates):
        frame = FRAMES + page - (BASE >> 12)
    else:
        order = shift - 12
        leaf = np.unique(page >> order, return_inverse=True)[1]
        frame = FRAMES + (leaf << order) + (page & ((1 << order) - 1))
    contiguous = contiguous_shift(page, frame, leaf_shift) if pattern.frames == "contiguous" else leaf_shift
    region = np.zeros(len(page), np.int32)
    return Mapping(
        pattern.leaf, cut, page, leaf_shift, frame, contiguous, region, (Region("program", kind="user"),)
    )


def contiguous_shift(
    page: NDArray[np.int64], frame: NDArray[np.int64], leaf_shift: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Log2 of the largest aligned range, up to 2 MiB, around each page whose frames lie as its pages do.

    Parameters
    ----------
    page : ndarray of int64, shape (distinct,)
        Ascending.
    frame : ndarray of int64, shape (distinct,)
    leaf_shift : ndarray of uint8, shape (distinct,)
        The least that is given.
    """
    found = leaf_shift.astype(np.int64)
    for order in range(1, SIZES["2M"] - 11):
        _, begin, group = np.unique(page >> order, return_index=True, return_inverse=True)
        moved = frame - page
        alike = np.minimum.reduceat(moved, begin) == np.maximum.reduceat(moved, begin)
        fits = alike[group] & (moved & ((1 << order) - 1) == 0)
        found = np.where(fits, np.maximum(found, order + 12), found)
    return found.astype(np.uint8)
