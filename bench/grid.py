"""The grid of the baseline, and what is tracked of it. pagewalk is imported when it is called.

The grid comes from ``results/baseline.json``, so asv's history and the gate speak of the same things. Like
the suite itself it is the working tree's: asv runs it over every commit.
"""

import hashlib
import json
from pathlib import Path

BASELINE = json.loads((Path(__file__).parent.parent / "results" / "baseline.json").read_text())
WORKLOADS = BASELINE["grid"]["workloads"]
MACHINES, MAPPINGS = tuple(BASELINE["grid"]["machines"]), tuple(BASELINE["grid"]["mappings"])
LIVES, RELEASES = tuple(BASELINE["grid"]["lives"]), tuple(BASELINE["grid"]["releases"])

_TRACES = sorted(item for item in BASELINE["inputs"].items() if item[0].startswith("trace "))
TRACES_SHA256 = hashlib.sha256(json.dumps(_TRACES).encode()).hexdigest()[:12]
"""Of all traces together."""


def subject(workload):
    """Open the packaged kernel trace, or make a synthetic one."""
    from pagewalk.study import replays

    return replays.subject(WORKLOADS[workload])


def figures(replay, instructions):
    """What is tracked of one replay: plain numbers, smaller is better, never negative.

    MPKI is nan, which asv leaves out, where a trace does not tell its instructions. Rates are cut to six
    digits, to be read; the baseline has the exact counts.
    """
    counts, cycles, memory = replay.counts, replay.cycles, replay.memory
    thousands = counts["accesses"] / 1000
    found = {
        "l1_misses": counts["l1_dtlb_misses"] / thousands,
        "stlb_misses": counts["stlb_misses"] / thousands,
        "stlb_miss_ratio": 100 * counts["stlb_misses"] / max(counts["l1_dtlb_misses"], 1),
        "mpki": 1000 * counts["stlb_misses"] / instructions if instructions else float("nan"),
        "refs_per_walk": counts["walk_refs"] / max(counts["walks"], 1),
        "walk_cycles": cycles["walk"] / thousands,
        "exposed_cycles": cycles["exposed"] / thousands,
        "page_tables": memory["page_tables"],
        "rounding_waste": memory["rounding_waste"],
    }
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def replayed():
    """Replay the whole grid: (workload, machine, mapping) -> figures."""
    from pagewalk.hardware.load import load
    from pagewalk.study.replays import replays
    from pagewalk.trace.instructions import instructions

    machines = [load(name) for name in MACHINES]
    found = {}
    for workload in WORKLOADS:
        opened = subject(workload)
        executed = instructions(opened.trace).number
        for replay in replays(opened, machines, MAPPINGS):
            found[workload, replay.machine, replay.mapping] = figures(replay, executed)
    return found


def lived():
    """Let each kernel release live each life: (life, release) -> figures."""
    import msgspec

    from pagewalk.study.lives import Event, live

    lives = msgspec.convert(BASELINE["grid"]["lives"], dict[str, list[Event]])
    return {(name, release): live(events, release) for name, events in lives.items() for release in RELEASES}
