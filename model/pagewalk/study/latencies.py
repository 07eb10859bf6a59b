"""How far latencies that nobody published move what another mapping saves: exact, without another replay.

What a walk reads, and where it finds it, does not depend on how long a read takes. So walk cycles are a sum
over what the replay counted, and other latencies give another sum of the same counts.
"""

from itertools import product
from typing import NamedTuple

from pagewalk.hardware.machine import Machine
from pagewalk.replay.result import Replay
from pagewalk.study.compare import Comparison, change
from pagewalk.study.validation.sensitivity import TIMES


class Range(NamedTuple):
    """What walk cycles may be."""

    names: list[str]
    """Whose latencies are assumed: data caches, "memory", "walker"."""
    cycles: tuple[tuple[int, int], tuple[int, int]]
    """Least and greatest walk cycles, before and after."""
    changes: tuple[float, float]
    """Least and greatest relative change."""


def latency_range(pair: Comparison, machine: Machine) -> Range | None:
    """Vary all assumed latencies of walk references together, between the limits of `sensitivity.TIMES`.

    Parameters
    ----------
    pair : Comparison
    machine : Machine
        As the replays had it.

    Returns
    -------
    Range or None
        None where no latency is assumed, nothing walks under the first mapping, or the walk cycles are not
        such a sum (a guest's walks that end in the nested TLB, scenarios with walks of other machines).
    """
    if any(_cycles(replay, _latencies(machine)) != replay.cycles.get("walk") for replay in _ends(pair)):
        return None
    known = _latencies(machine)
    names = _assumed(machine)
    if not names or not pair.before.cycles["walk"]:
        return None
    limits = [TIMES["start_cycles" if name == "walker" else "latency_cycles"] for name in names]
    befores, afters, changes = list[int](), list[int](), list[float]()
    for factors in product(*limits):
        moved = {name: round(known[name] * factor) for name, factor in zip(names, factors, strict=True)}
        before, after = (_cycles(replay, known | moved) for replay in _ends(pair))
        befores.append(before)
        afters.append(after)
        changes.append(change(before, after) or 0.0)
    cycles = (min(befores), max(befores)), (min(afters), max(afters))
    return Range(names, cycles, (min(changes), max(changes)))


def _ends(pair: Comparison) -> tuple[Replay, Replay]:
    return pair.before, pair.after


def _latencies(machine: Machine) -> dict[str, int]:
    caches = {cache.name: cache.latency_cycles for cache in machine.cache}
    return caches | {"memory": machine.memory.latency_cycles, "walker": machine.walker.start_cycles}


def _assumed(machine: Machine) -> list[str]:
    """Whose latencies are assumed; a ratio of sums of these is extreme where each is."""
    found = [cache.name for cache in machine.cache if "latency_cycles" in cache.assumed]
    found += ["memory"] if "latency_cycles" in machine.memory.assumed else []
    return found + (["walker"] if "start_cycles" in machine.walker.assumed else [])


def _cycles(replay: Replay, latencies: dict[str, int]) -> int:
    reads = sum(latencies.get(name, 0) * count for name, count in replay.walk_refs_in.items())
    return reads + latencies["walker"] * replay.counts.get("walks", 0)
