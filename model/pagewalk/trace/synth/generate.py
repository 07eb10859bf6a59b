"""Synthetic traces: from a description to accesses, block by block.

Random numbers are the raw words of numpy's PCG64, turned into what is needed by a few exact operations: numpy
promises that those words never change, and does not promise it of its distributions (NEP 19).
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import msgspec
import numpy as np
from numpy.typing import NDArray

from pagewalk.trace.encode import Raw, RawChunk
from pagewalk.trace.synth.kinds import Chase, Mixed, Probes, Sequential, Stride, Synthetic, Uniform, Zipf
from pagewalk.trace.synth.spec import extent, parts_of, starts
from pagewalk.trace.trace import STORE

BLOCK = 1 << 16
"""Accesses made at once, about; small enough for a core's L2 cache."""

REVISION = 1
"""Part of a trace's digest: goes up when a description comes to mean other accesses."""

WORD_LOG2 = 3
"""Every access is of 8 bytes."""

Draw = Callable[[int], NDArray[np.uint64]]
Offsets = NDArray[np.int64]


def generated(kind: Synthetic) -> Raw:
    """Describe a synthetic trace by its accesses; the same description gives the same, in chunks of any size.

    Parameters
    ----------
    kind : Synthetic

    Returns
    -------
    Raw
        With flags where it has stores.
    """
    name = type(kind).__name__.lower()
    description = f"synth:{name}?{urlencode(msgspec.structs.asdict(kind), doseq=True)}"

    def chunks(size: int) -> Iterator[RawChunk]:
        offsets, draw = _Stream(_offsets(kind, kind.seed)), _words(kind.seed, 1)
        for start in range(0, kind.accesses, size):
            count = min(size, kind.accesses - start)
            address = offsets.take(count).view(np.uint64) + np.uint64(kind.base)
            flags = None
            if kind.stores:
                flags = np.where(_fraction(draw(count)) < kind.stores, WORD_LOG2 | STORE, WORD_LOG2)
                flags = flags.astype(np.uint8)
            yield RawChunk(address, flags)

    return Raw(
        name,
        chunks,
        frozenset({"flags"} if kind.stores else ()),
        lambda: hashlib.sha256(f"{REVISION} {description}".encode()).hexdigest(),
        about={"workload": description},
    )


def _words(seed: int, *stream: int) -> Draw:
    """An endless source of random 64-bit words; each stream of a seed is independent of the others."""
    source = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream))
    return lambda count: np.asarray(source.random_raw(count))


def _fraction(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform in [0, 1), from the upper 53 bits."""
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)


def _below(words: NDArray[np.uint64], limit: int) -> Offsets:
    """Uniform whole numbers below `limit`; up to 2**52 the product never rounds up to it."""
    return (_fraction(words) * limit).astype(np.int64)


class _Stream:
    """Endless blocks, taken in pieces of any size."""

    def __init__(self, blocks: Iterator[Offsets]) -> None:
        self._blocks, self._left = blocks, np.empty(0, np.int64)

    def take(self, count: int) -> Offsets:
        pieces, have = [self._left], len(self._left)
        while have < count:
            pieces.append(next(self._blocks))
            have += len(pieces[-1])
        joined = np.concatenate(pieces)
        self._left = joined[count:]
        return joined[:count]


def _offsets(kind: Synthetic, seed: int) -> Iterator[Offsets]:
    """Endless blocks of byte offsets from the trace's base."""
    draw = _words(seed, 0)
    match kind:
        case Uniform():
            return (8 * _below(draw(BLOCK), kind.size // 8) for _ in itertools.count())
        case Zipf():
            return _zipf(kind, draw)
        case Sequential() | Stride():
            return _strided(kind)
        case Chase():
            return _chase(kind, draw)
        case Probes():
            return _probes(kind, draw)
        case Mixed():
            return _mixed(kind, seed, draw)
    raise TypeError(kind)


def _zipf(kind: Zipf, draw: Draw) -> Iterator[Offsets]:
    from pagewalk.kernels.trace.synth import ranks

    pages = kind.size >> 12
    page_of_rank = _shuffled(pages, draw)
    weight = np.cumsum(np.arange(1, pages + 1, dtype=np.float64) ** -kind.exponent)
    share = (weight / weight[-1] * 2.0**53).astype(np.int64)
    share[-1] = 1 << 53
    shift = 53 - pages.bit_length()
    guide = np.searchsorted(share, np.arange((1 << 53 - shift) + 1) << shift, side="right")
    rank = np.empty(BLOCK, np.int64)
    while True:
        words = draw(BLOCK)
        ranks((words >> np.uint64(11)).view(np.int64), shift, share, guide, rank)
        word_in_page = (words & np.uint64(0x1FF)).view(np.int64)
        yield (page_of_rank[rank] << 12) + (word_in_page << WORD_LOG2)


def _shuffled(count: int, draw: Draw) -> NDArray[np.int64]:
    """The numbers below `count`, in random order."""
    from pagewalk.kernels.trace.synth import shuffle

    order = np.arange(count)
    for done in range(0, count, BLOCK):
        words = draw(min(BLOCK, count - done))
        shuffle(order, count - done, (words >> np.uint64(32)).view(np.int64))
    return order


def _strided(kind: Sequential | Stride) -> Iterator[Offsets]:
    ahead = np.arange(BLOCK) * kind.step
    for block in itertools.count():
        yield (ahead + block * BLOCK * kind.step % kind.size) % kind.size


def _chase(kind: Chase, draw: Draw) -> Iterator[Offsets]:
    cycle = _shuffled(kind.size // kind.node, draw)
    while True:
        for start in range(0, len(cycle), BLOCK):
            yield cycle[start : start + BLOCK] * kind.node


def _probes(kind: Probes, draw: Draw) -> Iterator[Offsets]:
    heap, hot = starts([kind.table, kind.heap, kind.hot_size])[1:]
    each = kind.hot + 1 + kind.chain
    lookups = -(-BLOCK // each)
    while True:
        words = draw(lookups * (kind.hot + 1)).reshape(lookups, kind.hot + 1)
        accesses = np.empty((lookups, each), np.int64)
        accesses[:, : kind.hot] = hot + 8 * _below(words[:, 1:], kind.hot_size // 8)
        bucket = _below(words[:, 0], kind.table // 8)
        accesses[:, kind.hot] = 8 * bucket
        for link in range(kind.chain):
            place = _scrambled(bucket.view(np.uint64) * np.uint64(kind.chain) + np.uint64(link))
            accesses[:, kind.hot + 1 + link] = heap + 64 * _below(place, kind.heap // 64)
        yield accesses.ravel()


def _scrambled(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One-to-one, and without order: the last steps of splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    numbers = (numbers + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _mixed(kind: Mixed, seed: int, draw: Draw) -> Iterator[Offsets]:
    parts = parts_of(kind)
    begins = starts([extent(part) for _, part in parts])
    streams = [
        _Stream(_offsets(part, int(_words(seed, 2, number)(1)[0]))) for number, (_, part) in enumerate(parts)
    ]
    share = np.cumsum([weight for weight, _ in parts]) / sum(weight for weight, _ in parts)
    while True:
        chosen = np.searchsorted(share, _fraction(draw(BLOCK)), side="right")
        accesses = np.empty(BLOCK, np.int64)
        for number, (begin, stream) in enumerate(zip(begins, streams, strict=True)):
            mine = np.flatnonzero(chosen == number)
            accesses[mine] = begin + stream.take(len(mine))
        yield accesses
