"""Measure this machine, work out its machine file, and try that on chases that no fit used."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pagewalk.hardware.machine import Machine
from pagewalk.study.calibration import derive
from pagewalk.study.calibration.derive import Draft, Value
from pagewalk.study.calibration.fit import Fit
from pagewalk.study.calibration.timed.here import Here, here
from pagewalk.study.calibration.timed.plan import Measured, Points, measure
from pagewalk.study.calibration.timed.timing import Point
from pagewalk.study.validation.predict import predict


class Calibration(NamedTuple):
    """What was measured, and the machine file that it makes.

    Attributes
    ----------
    here : Here
    file : dict
        Content of the machine file; extends the preset.
    machine : Machine
        Of that file.
    values, missing : dict
        As of `Draft`.
    points : dict of str to list of Point
        Everything that was timed.
    tlb : Fit
        Of the points "tlb".
    data : ndarray of float64
        Cycles of the data read alone, for each of those.
    held_out : list of (Point, float)
        Chases that no fit used, and the cycles that the calibrated machine predicts.
    stolen : float
        Share of the time that the hypervisor gave to others meanwhile.
    """

    here: Here
    file: dict[str, Any]
    machine: Machine
    values: dict[str, Value]
    missing: dict[str, str]
    points: Points
    tlb: Fit
    data: NDArray[np.float64]
    held_out: list[tuple[Point, float]]
    stolen: float

    @property
    def errors(self) -> list[float]:
        """Relative error of each held-out prediction."""
        return [predicted / point.cycles - 1 for point, predicted in self.held_out]


def calibrate(advance: Callable[[], None]) -> Calibration:
    """Measure this machine.

    Parameters
    ----------
    advance : callable
        Called after each timed chase, `pagewalk.study.calibration.timed.plan.TIMINGS` times.

    Raises
    ------
    BadInput
        The kernel gives no address space to measure in.
    """
    return worked_out(here(), measure(advance))


def worked_out(found: Here, measured: Measured) -> Calibration:
    """Turn times into figures."""
    points = measured.points
    draft = Draft(found)
    derive.clock(draft, measured.clock_ghz)
    derive.near_caches(draft, points)
    tlb, data = derive.tlbs(draft, points["tlb"])
    derive.guest(draft, points, measured.huge, tlb)
    derive.pde_reach(draft, points, float(np.median(data)))
    rough = copy.deepcopy(draft)
    derive.walk(rough, points, "packed")
    derive.far_caches(rough, points)
    lie = derive.frames(rough, points, tlb.second.shared)
    derive.walk(draft, points, lie)
    derive.far_caches(draft, points)
    derive.walkers(draft, points)
    derive.counters(draft, measured.counted)
    machine = draft.machine()
    tried = [
        p if p.pattern.leaf == "2M" else p._replace(pattern=replace(p.pattern, frames=lie))
        for p in points["held out"]
    ]
    held_out = [(p, predict(p.pattern, machine).figures["cycles"]) for p in tried]
    return Calibration(
        found, draft.file, machine, draft.values, draft.missing, points, tlb, data, held_out, measured.stolen
    )
