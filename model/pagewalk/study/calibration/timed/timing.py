"""Timed chases on this machine: memory mapped as wanted, links laid into it, the lowest tenth of bursts.

Other work on the machine can only slow a burst down, so the lowest tenth of many short ones is what the
hardware does, and how far the passes differ says how quiet the machine was.
"""

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.study.calibration.timed.counters import CYCLES, DTLB_LOAD_MISSES, counted
from pagewalk.study.validation.case import Chase
from pagewalk.study.validation.program import BASE, chase

BURST_STEPS, BURST_ROUNDS = 4000, 8
BURST_NS = 300_000
"""Least steps of a burst, and rounds over all nodes, for between two bursts the interpreter's own pages come
into the TLBs; and about the longest it should take. Ours."""

BURSTS = 40
PASSES = 10
"""Bursts of a chase in a pass; passes over all chases, so that a noisy spell spoils one value of many chases
and not all values of some. Ours."""

AGAIN = 20
SURE = 1.1
"""More passes at most over chases whose best pass two others do not confirm within this factor. Ours."""

MULTIPLY_CYCLES = 3
"""A 64-bit multiplication of the one before, on every x86 core of the presets (the reference's section 4b)
and on larger Arm cores."""

SPAN_BYTES = 96 << 30
"""Address space for the chases; only touched pages take memory. Ours."""


class Point(NamedTuple):
    """A chase that was timed.

    Attributes
    ----------
    pattern : Chase
    passes : list of float
        Cycles an access: of each pass, the lowest tenth of its bursts.
    """

    pattern: Chase
    passes: list[float]

    @property
    def cycles(self) -> float:
        """The best pass; where most passes agree, the best that two others confirm.

        A pass far below many that agree is a fault of the clock, not a quieter machine.
        """
        ordered = sorted(self.passes)
        if len(ordered) < 3 or ordered[len(ordered) // 2] > SURE * ordered[2]:
            return ordered[0]
        sure = (best for best, third in zip(ordered, ordered[2:], strict=False) if third <= SURE * best)
        return next(sure, ordered[0])

    @property
    def sure(self) -> bool:
        """Two other passes took about as long as the one that counts."""
        near = [passed for passed in self.passes if self.cycles <= passed <= SURE * self.cycles]
        return len(near) >= min(3, len(self.passes))

    @property
    def spread(self) -> float:
        """From the best pass to the middle one, as a share of the best."""
        return float(np.median(self.passes)) / self.cycles - 1


class Memory(NamedTuple):
    """Address space to lay chases into, as words; its beginning is aligned to 1 GiB."""

    words: NDArray[np.uint64]
    mapped: mmap.mmap


@contextmanager
def memory(leaf: str, size_bytes: int = SPAN_BYTES) -> Iterator[Memory]:
    """Reserve address space that the kernel maps with base pages ("4K") or, where it can, with 2M leaves.

    Raises
    ------
    BadInput
        The kernel gives no such address space.
    """
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
        mapped = mmap.mmap(-1, size_bytes + (1 << 30), flags=flags)
        mapped.madvise(mmap.MADV_HUGEPAGE if leaf == "2M" else mmap.MADV_NOHUGEPAGE)
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(
            "calibrate", f"no address space for {leaf} pages ({error})", "run it on Linux"
        ) from None
    words = np.frombuffer(mapped, np.uint64)
    begin = -words.ctypes.data % (1 << 30) // 8
    try:
        yield Memory(words[begin : begin + size_bytes // 8], mapped)
    finally:
        del words


def huge_share(target: Memory, pages_bytes: int) -> float:
    """Which share of the first bytes the kernel maps with 2M leaves; 0 where it does not say."""
    first = target.words.ctypes.data
    held, counted = 0, 0
    try:
        with open("/proc/self/smaps", encoding="ascii", errors="replace") as lines:  # noqa: PTH123
            inside = False
            for line in lines:
                if "-" in (head := line.split(" ", 1)[0]) and not head.endswith(":"):
                    start, end = (int(part, 16) for part in head.split("-"))
                    inside = start < first + pages_bytes and end > first
                elif inside and line.startswith("Rss:"):
                    counted += int(line.split()[1]) << 10
                elif inside and line.startswith("AnonHugePages:"):
                    held += int(line.split()[1]) << 10
    except OSError:
        return 0.0
    return held / counted if counted else 0.0


def pinned() -> int:
    """Stay on one of the CPUs that this process may use; return which."""
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def ticks(cpu: int, stat: Path = Path("/proc/stat")) -> list[int]:
    """What a CPU did since it started, in ticks: user, nice, system, idle, iowait, irq, softirq, steal.

    Empty where the kernel does not say.
    """
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return []
    return next(([int(n) for n in line.split()[1:9]] for line in lines if line.startswith(f"cpu{cpu} ")), [])


def stolen(before: list[int], after: list[int]) -> float:
    """Share of the time between two `ticks` that the hypervisor gave to others; 0 where it does not say."""
    passed = [late - early for early, late in zip(before, after, strict=False)]
    total = sum(passed)
    return passed[7] / total if len(passed) == 8 and total else 0.0


def nanoseconds_a_cycle() -> float:
    """Time of a cycle, by a chain of multiplications that no core can shorten."""
    from pagewalk.kernels.measure import square

    steps, number = 10_000, np.uint64(3)
    square(number, 1)
    return (_lowest(lambda: square(number, steps)) - _lowest(lambda: square(number, 0))) / (
        steps * MULTIPLY_CYCLES
    )


def counted_figures(target: Memory, walking: Chase) -> dict[str, float]:
    """What hardware counters say of a multiplication and of a chase that walks; only what they count."""
    from pagewalk.kernels.measure import follow, square

    steps, start = 1_000_000, _laid(target, walking)[0]
    follow(target.words, start, walking.pages)
    events = {
        "counted cycles of a multiplication": counted(CYCLES, lambda: square(np.uint64(3), steps)),
        "counted DTLB load misses of a walking access": counted(
            DTLB_LOAD_MISSES, lambda: follow(target.words, start, steps)
        ),
    }
    return {name: count / steps for name, count in events.items() if count is not None}


def time_chase(target: Memory, pattern: Chase) -> float:
    """Cycles an access of a chase: the lowest tenth of its bursts, less the time of an empty one.

    Clock and empty burst are timed before and after: a core that was slow only then would make a chase faster
    than it is.
    """
    from pagewalk.kernels.measure import follow, follow_all

    nodes = _laid(target, pattern)
    at = nodes[np.arange(pattern.chains) * pattern.pages // pattern.chains]

    def go(steps: int) -> None:
        """Go on from where the burst before ended, so that all nodes have their turn."""
        if pattern.chains == 1:
            at[0] = follow(target.words, at[0], steps)
        else:
            follow_all(target.words, at, steps)

    first = max(max(BURST_STEPS, pattern.pages) // pattern.chains, 1)
    began = time.perf_counter_ns()
    go(first)
    each = max((time.perf_counter_ns() - began) / first, 0.1)
    steps = max(BURST_STEPS, BURST_ROUNDS * pattern.pages) // pattern.chains
    steps = int(min(max(steps, 20_000 / each), max(BURST_NS / each, 100)))
    before = nanoseconds_a_cycle()
    empty = _lowest(lambda: go(0))
    spent = _lowest(lambda: go(steps)) - min(empty, _lowest(lambda: go(0)))
    return spent / (steps * pattern.chains) / min(before, nanoseconds_a_cycle())


def _laid(target: Memory, pattern: Chase) -> NDArray[np.uint64]:
    """Write the links of a chase; return its nodes in order, as indices of words."""
    one = chase(Chase(pages=pattern.pages, stride=pattern.stride, line=pattern.line), GEOMETRIES["x86-64"])
    order = slice(pattern.pages)
    address = (one.pages[one.page[order]] << np.uint64(12)) + one.offset[order] - np.uint64(BASE)
    node = address // np.uint64(8)
    target.words[node] = np.roll(node, -1)
    return node


def _lowest(go: Callable[[], object]) -> float:
    """Nanoseconds: the lowest tenth of some bursts."""
    taken = np.empty(BURSTS)
    for burst in range(BURSTS):
        began = time.perf_counter_ns()
        go()
        taken[burst] = time.perf_counter_ns() - began
    return float(np.percentile(taken, 10))
