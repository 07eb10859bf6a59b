"""What is on the GPU during a sweep: the tables of a pass, and the launches that send misses through them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from pagewalk.kernels.gpu.second import ALL, KIND_AT, LANES, NONE, SETS, SIDE, second_levels, words_of_block

THREADS = 256
"""Of a block. Ours to choose: eight warps share out the sets of a table."""

ROOM = 1 << 20
"""Misses of one launch. Ours to choose."""

KINDS = 1 << 32 - KIND_AT
"""What walks can be told apart by."""

KERNELS = {(narrow, near): second_levels(narrow, near) for narrow in (True, False) for near in (True, False)}


class Device(NamedTuple):
    """A GPU."""

    name: str
    processors: int
    shared_bytes: int
    """That a block may have without asking for more."""
    free_bytes: int


class Second(NamedTuple):
    """Second levels to be replayed, and the walk caches behind each."""

    set_of: NDArray[np.uint16]
    """uint16 (tables, units): set of each unit in each table."""
    sets: NDArray[np.int64]
    """int64 (tables,)"""
    kind_of: NDArray[np.int8]
    """int8 (units,): what walks are counted by, below `KINDS`."""
    kinds: int
    walk_from: NDArray[np.int8]
    """int8 (units,): the lowest walk cache that a walk of the unit probes."""
    walk_of: NDArray[np.uint32]
    """uint32 (caches, units): as `walk_words` makes them."""
    ways: NDArray[np.int64]
    """int64 (caches,)"""
    begin: NDArray[np.int64]
    """int64 (caches,): first row of each cache."""
    walk_rows: int
    """Of all caches: a row for each way of each set."""


class Pass(NamedTuple):
    """Second levels on the GPU: what launches add to, and how they are launched."""

    unit: Any
    launches: list[tuple[Any, Any]]
    constants: tuple[Any, ...]
    state: tuple[Any, Any, Any, Any]
    shape: tuple[int, int, int]
    """Tables, kinds, walk caches."""


def device() -> Device | None:
    """The GPU that will be used; None if the driver or the device is missing."""
    if not cuda.is_available():
        return None
    found = cuda.get_current_device()
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    free = cuda.current_context().get_memory_info()[0]
    return Device(name, found.MULTIPROCESSOR_COUNT, found.MAX_SHARED_MEMORY_PER_BLOCK, free)


def walk_words(
    kind: NDArray[np.integer], set_of: NDArray[np.integer], key: NDArray[np.integer]
) -> NDArray[np.uint32] | None:
    """Kind, set and entry of each unit in each walk cache in one word; None if they do not fit.

    Parameters
    ----------
    kind : ndarray of int, shape (units,)
    set_of, key : ndarray of int, shape (caches, units)
        Set, among those of the cache, and number of the entry, among those of the set.
    """
    largest = [of.max(initial=0) for of in (kind, set_of, key)]
    if largest[0] >= KINDS or largest[1] >= SETS or largest[2] >= NONE:
        return None
    word = kind.astype(np.int64) << KIND_AT | set_of.astype(np.int64) << SIDE | key.astype(np.int64)
    return word.astype(np.uint32)


def shared_bytes(caches: int, kinds: int, walk_rows: int) -> int:
    """Shared memory that a block needs beside its rows."""
    return 4 * words_of_block(THREADS, caches, kinds) + 2 * LANES * max(1, walk_rows)


def power_on(found: Device, second: Second) -> Pass:
    """Put empty second levels and walk caches on the GPU.

    Tables whose rows take about as much of a multiprocessor's shared memory are launched together, each such
    group in a stream of its own; those that do not fit leave their rows in the GPU's memory.
    """
    cuda.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # few blocks are right where there are few tables
    tables, units = second.set_of.shape
    caches = len(second.ways)
    narrow = units < NONE
    kept = np.dtype(np.uint16 if narrow else np.uint32)
    empty = NONE if narrow else ALL
    first = np.cumsum(second.sets) - second.sets
    some = np.zeros((1, units), np.uint32)
    constants = (
        *map(_small, (first, second.sets)),
        *map(cuda.to_device, (second.set_of, second.kind_of, second.walk_from)),
        cuda.to_device(second.walk_of if caches else some),
        np.uint32(caches),
        *map(_small, (second.ways, second.begin)),
    )
    state = (
        cuda.to_device(np.full(int(second.sets.sum()) * LANES, empty, kept)),
        cuda.to_device(np.full((tables, max(1, second.walk_rows) * LANES), NONE, np.uint16)),
        cuda.to_device(np.zeros((tables, second.kinds * (LANES + 1)), np.int64)),
        cuda.to_device(np.zeros((tables, second.kinds * max(1, caches) * LANES), np.int64)),
    )
    shared = shared_bytes(caches, second.kinds, second.walk_rows)
    row_bytes = kept.itemsize * LANES
    launches = []
    for near, members in _groups(second.sets, (found.shared_bytes - shared) // row_bytes):
        bytes_each = shared + (row_bytes * int(second.sets[members].max()) if near else 0)
        launch = KERNELS[narrow, near][len(members), THREADS, cuda.stream(), bytes_each]
        launches.append((launch, _small(members)))
    shape = tables, second.kinds, caches
    return Pass(cuda.device_array(ROOM, np.int32), launches, constants, state, shape)


def _small(numbers: NDArray[np.integer]) -> Any:
    """On the GPU, in 32 bits; never empty."""
    return cuda.to_device((numbers if len(numbers) else np.zeros(1)).astype(np.int32))


def _groups(sets: NDArray[np.int64], most: int) -> Sequence[tuple[bool, NDArray[np.int64]]]:
    """Tables that are launched together: by powers of two of sets, and those of more than `most` sets."""
    size = np.array([int(count - 1).bit_length() for count in sets.tolist()])
    size[sets > most] = -1
    return [(bool(one >= 0), np.flatnonzero(size == one)) for one in np.unique(size)[::-1]]


def send(on: Pass, unit: NDArray[np.int32]) -> None:
    """Send misses of the first level through all tables; returns before they have passed.

    The copy waits for what was launched before, for it goes through the default stream.
    """
    for begin in range(0, len(unit), ROOM):
        part = unit[begin : begin + ROOM]
        there = on.unit[: len(part)]
        there.copy_to_device(part)
        for launch, members in on.launches:
            launch(there, members, *on.constants, *on.state)


def counted(on: Pass) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What has been counted.

    Returns
    -------
    depths : ndarray of int64, shape (kinds, tables, 33)
        Misses of the first level by depth.
    passed : ndarray of int64, shape (kinds, caches, tables, 32)
        Walks that found nothing in each cache and those below it, of second levels of 1, 2, ... 32 ways.
    """
    tables, kinds, caches = on.shape
    depths, passed = (found.copy_to_host() for found in on.state[2:])
    passed = passed[:, : kinds * caches * LANES].reshape(tables, kinds, caches, LANES)
    return depths.reshape(tables, kinds, LANES + 1).swapaxes(0, 1), np.moveaxis(passed, 0, 2)
