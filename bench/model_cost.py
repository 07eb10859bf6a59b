"""What the model says of translation and of kernels. Exact: any change is a change of the model.

The grid is worked out once; every benchmark is a look-up. A version stands for the meaning of a figure and
for the traces, so that asv never compares figures of different ones.
"""

from .grid import LIVES, MACHINES, MAPPINGS, RELEASES, TRACES_SHA256, WORKLOADS, lived, replayed


def tracked(figure, name, unit):
    """A benchmark that looks a figure up, with the name and unit that the pages show."""

    def track(self, grid, *point):
        return grid[point][figure]

    track.pretty_name, track.unit = name, unit
    return track


class Cost:
    """One replay."""

    params = (tuple(WORKLOADS), MACHINES, MAPPINGS)
    param_names = ("workload", "machine", "mapping")
    version = f"1 {TRACES_SHA256}"

    def setup_cache(self):
        return replayed()

    setup_cache.timeout = 600

    track_l1_misses = tracked("l1_misses", "L1 DTLB misses", "misses / 1000 accesses")
    track_stlb_misses = tracked("stlb_misses", "STLB misses", "misses / 1000 accesses")
    track_stlb_miss_ratio = tracked("stlb_miss_ratio", "STLB miss ratio", "% of L1 DTLB misses")
    track_mpki = tracked("mpki", "STLB misses (MPKI)", "misses / 1000 instructions")
    track_refs_per_walk = tracked("refs_per_walk", "Walk references", "references / walk")
    track_walk_cycles = tracked("walk_cycles", "Walk cycles", "cycles / 1000 accesses")
    track_exposed_cycles = tracked("exposed_cycles", "Exposed cycles", "cycles / 1000 accesses")
    track_page_tables = tracked("page_tables", "Page tables", "bytes")
    track_rounding_waste = tracked("rounding_waste", "Rounding waste", "bytes")


class Change:
    """What PMD leaves leave of the walk cycles that base pages cost; smaller is better, as asv wants it."""

    params = (tuple(WORKLOADS), MACHINES)
    param_names = ("workload", "machine")
    version = f"1 {TRACES_SHA256}"
    setup_cache = Cost.setup_cache

    def track_walk_cycles_left(self, grid, workload, machine):
        base, pmd = (grid[workload, machine, mapping]["walk_cycles"] for mapping in ("base", "pmd"))
        return float(f"{100 * pmd / base:.6g}") if base else float("nan")

    track_walk_cycles_left.pretty_name = "Walk cycles that PMD leaves leave"
    track_walk_cycles_left.unit = "% of those with base pages"


class Kernel:
    """What the life of some areas costs a kernel."""

    params = (LIVES, RELEASES)
    param_names = ("life", "Linux")
    version = "1"

    def setup_cache(self):
        return lived()

    track_splits = tracked("split", "Leaf splits", "splits")
    track_flushes = tracked("flush-all", "Full TLB flushes", "flushes on all CPUs")
    track_attribute_calls = tracked("attribute_calls", "Attribute calls", "calls")
    track_rounding_waste = tracked("memory.rounding_waste", "Memory wasted", "bytes")
    track_page_tables = tracked("memory.page_tables", "Page tables of areas", "bytes")
