"""Second levels of plain LRU machines on a GPU: the same counts, from `pagewalk.kernels.gpu`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.index import set_index
from pagewalk.replay.tables import PscTable
from pagewalk.replay.together.lanes import Counts, Size, number_in_set

LITTLE = 1 << 14
"""Bytes that we allow for a table's walk caches and counters; 38 entries of 32 lanes take 2,432."""

MOST_ROWS = 1 << 26
"""Rows of a pass: their lanes are numbered with 32 bits."""


@dataclass
class Gpu:
    """A GPU, and what it has done.

    Attributes
    ----------
    device : pagewalk.kernels.gpu.device.Device
    alone : Lock
        Held by the thread that uses it.
    machines : int
        Replayed on it so far.
    """

    device: Any
    alone: Lock = field(default_factory=Lock)
    machines: int = 0


def find_gpu() -> Gpu:
    """The GPU of this machine.

    Raises
    ------
    BadInput
        The package that drives it is not installed, or there is none that it can use.
    """
    if find_spec("numba_cuda") is None:
        raise BadInput(
            "the GPU", "needs the package numba-cuda, which is not installed", "pip install 'pagewalk[gpu]'"
        )
    from pagewalk.kernels.gpu.device import device

    found = device()
    if found is None:
        raise BadInput(
            "the GPU", "no NVIDIA GPU with a driver is here", "without --gpu, sweeps have the same counts"
        )
    return Gpu(found)


@contextmanager
def taken(gpu: Gpu | None) -> Iterator[None]:
    """Have the GPU alone, if there is one.

    Raises
    ------
    BadInput
        Its driver or compiler failed meanwhile: its memory was taken by others, or it is gone.
    """
    if gpu is None:
        yield
        return
    with gpu.alone:
        try:
            yield
        except Exception as error:
            if not type(error).__module__.startswith(("numba.cuda.", "cuda.")):
                raise
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(
                f"the GPU {gpu.device.name}", why, "the same command without --gpu goes on from here"
            ) from error


def most_tables(gpu: Gpu, units: int, sets: int) -> int:
    """Tables of at most so many sets that a pass over a trace of so many units may have on the GPU.

    The half of its free memory is ours to take; what a table needs beside rows and sets is small.
    """
    free: int = gpu.device.free_bytes
    return max(1, min(MOST_ROWS // sets, free // 2 // (2 * units + 128 * sets + LITTLE)))


class OnGpu:
    """A pass on the GPU."""

    def __init__(self, second: Any, placements: Sequence[tuple[str, int]], gpu: Gpu) -> None:
        from pagewalk.kernels.gpu.device import power_on

        self.placements = placements
        self.tables = power_on(gpu.device, second)

    def send(self, unit: NDArray[np.int32]) -> None:
        """Send misses of the first level through."""
        from pagewalk.kernels.gpu.device import send

        send(self.tables, unit)

    def counted(self) -> list[Counts]:
        """What was counted, of second levels of 1, 2, ... 32 ways."""
        from pagewalk.kernels.gpu.device import counted

        depths, passed = counted(self.tables)
        walks = np.cumsum(depths[:, :, :0:-1], axis=2)[:, :, ::-1]
        left = np.concatenate([walks[None], passed.swapaxes(0, 1)])
        tables, ways = left.shape[2:]
        return [{(*self.placements[t], w + 1): left[:, :, t, w] for t in range(tables) for w in range(ways)}]


def on_gpu(
    gpu: Gpu,
    number: NDArray[np.int64],
    sizes: Sequence[Size],
    kind_of: NDArray[np.integer],
    psc: PscTable,
) -> OnGpu | None:
    """Begin a pass on the GPU; None where its walk caches are too large for it.

    Parameters
    ----------
    gpu : Gpu
    number, sizes, kind_of
        As of `pagewalk.replay.together.lanes.Lanes`.
    psc : PscTable
    """
    from pagewalk.kernels.gpu.device import Second, shared_bytes, walk_words

    units, caches, kinds = len(kind_of), len(psc.level), int(kind_of.max(initial=0)) + 1
    key = np.zeros(psc.tag_of.shape, np.int64)
    for cache, of in enumerate(zip(psc.set_of, psc.tag_of, strict=True)):
        key[cache] = number_in_set(*of)
    word = walk_words(kind_of, psc.number[psc.set_of], key)
    rows = int(psc.ways.sum())
    if word is None or not units or shared_bytes(caches, kinds, rows) > gpu.device.shared_bytes:
        return None
    placements = list(dict.fromkeys((index, count) for index, count, _ in sizes))
    sets = np.array([count for _, count in placements], np.int64)
    set_of = np.zeros((len(sets), units), np.uint16)
    for table, (index, count) in enumerate(placements):
        set_of[table] = set_index(index, number, count)
    one = psc.set_of[:, 0]
    base = one - psc.number[one]
    begin = (np.cumsum(psc.ways) - psc.ways)[base]
    second = Second(
        set_of, sets, kind_of.astype(np.int8), kinds, psc.first, word, psc.ways[base], begin, rows
    )
    return OnGpu(second, placements, gpu)
