"""The workloads, machines and mappings of the suite. Plain strings; pagewalk is imported when called."""

WORKLOADS = {
    "git diff": "sample:gitdiff",
    "uniform 256 MiB": "synth:uniform?size=256M&accesses=1e6&seed=1",
    "zipf 1 GiB": "synth:zipf?size=1G&accesses=1e6&seed=1",
    "sequential": "synth:sequential?size=256M&step=64&accesses=1e6",
    "chase 8 MiB": "synth:chase?size=8M&accesses=1e6&seed=1",
    "hash probes": "synth:probes?table=64M&accesses=1e6&seed=1",
    "mixed": "synth:mixed?accesses=1e6&seed=1",
}
MACHINES = ("textbook-setassoc", "intel-skylake-sp", "amd-zen3-milan", "intel-sapphire-rapids")
MAPPINGS = ("base", "pmd")


def subject(workload):
    """Open the packaged kernel trace, or make a synthetic one."""
    from pagewalk.study import replays

    return replays.subject(WORKLOADS[workload])


def figures(replay):
    """What is tracked of one replay; smaller is better, never negative."""
    accesses = replay.counts["accesses"] / 1000
    return {
        "l1_misses": replay.counts["l1_dtlb_misses"] / accesses,
        "stlb_misses": replay.counts["stlb_misses"] / accesses,
        "walk_refs": replay.counts["walk_refs"] / accesses,
        "walk_cycles": replay.cycles["walk"] / accesses,
        "page_tables": float(replay.memory["page_tables"]),
        "rounding_waste": float(replay.memory["rounding_waste"]),
    }


def compute():
    """Replay the whole grid: (workload, machine, mapping) -> figures."""
    from pagewalk.hardware.load import load
    from pagewalk.study.replays import replays

    machines = [load(name) for name in MACHINES]
    found = {}
    for workload in WORKLOADS:
        for replay in replays(subject(workload), machines, MAPPINGS):
            found[workload, replay.machine, replay.mapping] = figures(replay)
    return found
