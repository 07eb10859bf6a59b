"""Many processes that each load a BPF program: how far their read-only pages lie apart in physical memory.

The workload behind the measured growth of DirectMap4k (reference M8 to M10; Aaron Lu, 7 Nov 2022). What is
known of it: 3 pages made read-only and executable by each process, up to 2048 processes, 8 GiB, memory
fresh or full of page cache. How much else a process takes is not known, so it is a parameter here.
"""

from dataclasses import dataclass, field
from random import Random

from pagewalk.linux.executable.bpf import LoadBpf
from pagewalk.linux.memory.buddy import MOVABLE, UNMOVABLE, Memory
from pagewalk.linux.memory.kernel import Kernel

LOW_PAGES, HIGH_PAGES = 3584, 4352
"""Reclaim starts below 14 MiB free and ends at 17 MiB (ours: about the watermarks of 8 GiB, from memory)."""


@dataclass
class PageCache:
    """Page cache that fills memory, and is reclaimed a run at a time.

    Attributes
    ----------
    runs : list of int
        First frames of what will be reclaimed, the last one first.
    pages : int
        Pages in each run: how far neighbours in the order of reclaim are neighbours in memory.
    """

    runs: list[int] = field(default_factory=list)
    pages: int = 1

    def reclaim(self, memory: Memory) -> None:
        """Free what was not used for longest, if memory is short."""
        free = memory.free_frames()
        if free < LOW_PAGES:
            while free < HIGH_PAGES and self.runs:
                first = self.runs.pop()
                memory.give(range(first, first + self.pages))
                free += self.pages


def fill(memory: Memory, run_pages: int, seed: int) -> PageCache:
    """Fill memory with page cache that will be reclaimed in runs of so many pages, in random order."""
    cache = PageCache(pages=run_pages)
    while memory.free_frames() > HIGH_PAGES:
        first = memory.take(run_pages.bit_length() - 1, MOVABLE)
        if first is None:
            break
        memory.split(first)
        cache.runs.append(first)
    Random(seed).shuffle(cache.runs)
    return cache


def start(
    kernel: Kernel,
    names: range,
    *,
    unmovable_pages: int,
    movable_pages: int,
    image_bytes: int,
    images: int,
    cache: PageCache | None = None,
) -> int:
    """Start processes, each of which takes memory and loads its programs; all stay alive.

    Parameters
    ----------
    kernel : Kernel
    names : range
        Numbers of the processes.
    unmovable_pages, movable_pages : int
        Base pages that each takes one by one, in turn: page tables, stack, slabs; its own memory.
    image_bytes, images : int
        Size and number of programs that each loads.
    cache : PageCache, optional
        Reclaimed when memory is short.

    Returns
    -------
    int
        2 MiB leaves of the direct map that were split.
    """
    before = kernel.maps.direct.vmstat()["direct_map_level2_splits"]
    for name in names:
        for page in range(max(unmovable_pages, movable_pages)):
            if page < unmovable_pages:
                kernel.memory.take(0, UNMOVABLE)
            if page < movable_pages:
                kernel.memory.take(0, MOVABLE)
            if cache is not None and page % 128 == 0:
                cache.reclaim(kernel.memory)
        kernel.apply(LoadBpf(name=f"process {name}", size=image_bytes, images=images))
    return kernel.maps.direct.vmstat()["direct_map_level2_splits"] - before
