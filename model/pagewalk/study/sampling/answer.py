"""The answer of ``pagewalk sample``: estimates for every machine and mapping, checked where asked for."""

import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from pagewalk.hardware.machine import Machine
from pagewalk.replay.engine import replay
from pagewalk.study.replays import Subject
from pagewalk.study.sampling.estimate import CONFIDENCE, Estimates, estimates
from pagewalk.study.sampling.windows import sample

METHOD = "windows at random in equal stretches, warmed up by last accesses; post-stratified by reuse time"


class Sampled(Struct, frozen=True, kw_only=True):
    """The answer of ``pagewalk sample``.

    Attributes
    ----------
    trace, trace_sha256 : str
    records : int
    seed : int
    confidence : float
        Of the intervals.
    method : str
    estimates : list of Estimates
    checked : list of dict of str to int
        What whole replays gave for each: l1_misses, stlb_misses; empty where they were not asked for.
    seconds : dict of str to float
        sample, replay, check.
    """

    schema: str = "pagewalk.sample/1"
    trace: str
    trace_sha256: str
    records: int
    seed: int
    confidence: float = CONFIDENCE
    method: str = METHOD
    estimates: list[Estimates]
    checked: list[dict[str, int]] = []
    seconds: dict[str, float]


def sampled(
    subject: Subject,
    machines: Sequence[Machine],
    mappings: Sequence[str],
    *,
    share: float = 0.02,
    seed: int = 1,
    check: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Sampled:
    """Sample a trace, replay the sample on every machine under every mapping; with `check` the trace too.

    Raises
    ------
    BadInput
        As of `sample` and of a replay.
    """
    began = time.perf_counter()
    cells = [(machine, subject.mapped(name, machine)) for machine in machines for name in mappings]
    taken = sample(subject.trace, cells, share, seed, progress)
    took = {"sample": time.perf_counter() - began}
    found = [estimates(taken, mapping, machine) for machine, mapping in cells]
    took["replay"] = time.perf_counter() - began - took["sample"]
    checked = []
    for machine, mapping in cells if check else []:
        series = replay(subject.trace, mapping, machine).windows
        checked.append({"l1_misses": sum(series.l1_misses), "stlb_misses": sum(series.stlb_misses)})
    took["check"] = time.perf_counter() - began - sum(took.values())
    return Sampled(
        trace=subject.trace.name,
        trace_sha256=subject.trace.digest(),
        records=subject.trace.accesses,
        seed=seed,
        estimates=found,
        checked=checked,
        seconds={name: round(value, 6) for name, value in took.items()},
    )
