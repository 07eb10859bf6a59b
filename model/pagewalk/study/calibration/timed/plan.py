"""What is timed, and the timing of all of it."""

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pagewalk.study.calibration.timed.timing import (
    AGAIN,
    PASSES,
    Point,
    counted_figures,
    huge_share,
    memory,
    nanoseconds_a_cycle,
    pinned,
    stolen,
    ticks,
    time_chase,
)
from pagewalk.study.validation.case import Chase

COUNTS = (
    *range(8, 132, 4), 144, 160, 192, 224, 256, 320, 384, 512, 640, 768, 896, 1024, 1280, 1536, 1792,
    2048, 2304, 2560, 2816, 3072, 3328, 3584, 4096,
)  # fmt: skip
STRIDES = (1 << 12, 1 << 13, 1 << 14, 1 << 16)

PLAN: dict[str, list[Chase]] = {
    "L1D": [Chase(pages=n, stride=64, leaf="2M") for n in (64, 128, 192)],
    "L2": [Chase(pages=n, stride=64, leaf="2M") for n in (2048, 3072, 4096)],
    "L3": [Chase(pages=n, stride=64, leaf="2M") for n in (32768, 40960, 49152)],
    "L3 share": [Chase(pages=n << 14, stride=64, leaf="2M") for n in (4, 6, 8, 12, 16, 24, 32)],
    "memory": [Chase(pages=1 << 20, stride=256, leaf="2M")],
    "tlb": [Chase(pages=n, stride=s) for s in STRIDES for n in COUNTS],
    "walking": [Chase(pages=n, stride=1 << 16) for n in (512, 640, 768, 1024)],
    "chains": [Chase(pages=512, stride=1 << 18, chains=k) for k in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)],
    "spaced": [Chase(pages=n, stride=1 << s) for s in (21, 23, 24, 26, 28) for n in (96, 128, 192, 256, 320)],
    "frames": [Chase(pages=n) for n in (5000, 9000, 15000)],
    "2M near": [Chase(pages=n, leaf="2M") for n in (128, 160)],
    "2M apart": [Chase(pages=n, stride=1 << 21, leaf="2M") for n in (8, 16, 24, 32, 40, 48, 64, 80, 96, 128)],
    "held out": [
        *(Chase(pages=n, stride=3 << 12) for n in (60, 300, 700, 1500)),
        *(Chase(pages=n, stride=5 << 12) for n in (100, 450, 1100, 2500)),
        *(Chase(pages=n) for n in (6000, 12000, 20000)),
        *(Chase(pages=1000, stride=1 << 17, chains=k) for k in (2, 4)),
        *(Chase(pages=n, leaf="2M") for n in (60, 400, 1000, 1500, 6000, 20000)),
        *(Chase(pages=n, stride=7 << 12, leaf="2M") for n in (90, 350, 900)),
    ],
}
"""Name -> chases. The counts and strides are ours; no fit uses those that are held out."""

TIMINGS = PASSES * sum(map(len, PLAN.values()))
"""How many times a chase is timed, if none must be again."""

Points = dict[str, list[Point]]


class Measured(NamedTuple):
    """What was timed and counted.

    Attributes
    ----------
    points : dict
        Name -> timed chases, in the order of the plan.
    clock_ghz : list of float
        Before, and after each pass.
    huge : float
        Share of the memory for 2M leaves that the kernel did map so.
    stolen : float
        Share of the time that the hypervisor gave to others.
    counted : dict of str to float
        Figures from hardware counters; empty where there are none.
    """

    points: Points
    clock_ghz: list[float]
    huge: float
    stolen: float = 0.0
    counted: Mapping[str, float] = MappingProxyType({})


def measure(advance: Callable[[], None]) -> Measured:
    """Time every chase of the plan; again, where other work disturbed all passes but one or two.

    Parameters
    ----------
    advance : callable
        Called after each timing.

    """
    cpu = pinned()
    before = ticks(cpu)
    clock = [1 / nanoseconds_a_cycle()]
    points: Points = {name: [Point(pattern, []) for pattern in patterns] for name, patterns in PLAN.items()}
    with memory("4K") as small, memory("2M") as large:
        target = {"4K": small, "2M": large}
        for _ in range(PASSES):
            for point in itertools.chain(*points.values()):
                point.passes.append(time_chase(target[point.pattern.leaf], point.pattern))
                advance()
            clock.append(1 / nanoseconds_a_cycle())
        for _ in range(AGAIN):
            for point in itertools.chain(*points.values()):
                if not point.sure:
                    point.passes.append(time_chase(target[point.pattern.leaf], point.pattern))
        huge = huge_share(large, 1 << 28)
        counted = counted_figures(small, PLAN["walking"][0])
    return Measured(points, clock, huge, stolen(before, ticks(cpu)), counted)
