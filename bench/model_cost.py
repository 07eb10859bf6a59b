"""What translation costs, per workload, machine and mapping. Exact: any change is a change of the model."""

from .grid import MACHINES, MAPPINGS, WORKLOADS, compute


class Cost:
    """Replay the grid once; every benchmark is a look-up."""

    params = (tuple(WORKLOADS), MACHINES, MAPPINGS)
    param_names = ("workload", "machine", "mapping")
    version = "1"

    def setup_cache(self):
        return compute()

    setup_cache.timeout = 600

    def track_l1_misses(self, grid, *point):
        return grid[point]["l1_misses"]

    def track_stlb_misses(self, grid, *point):
        return grid[point]["stlb_misses"]

    def track_walk_refs(self, grid, *point):
        return grid[point]["walk_refs"]

    def track_walk_cycles(self, grid, *point):
        return grid[point]["walk_cycles"]

    def track_page_tables(self, grid, *point):
        return grid[point]["page_tables"]

    def track_rounding_waste(self, grid, *point):
        return grid[point]["rounding_waste"]

    track_l1_misses.unit = "L1 DTLB misses / 1000 accesses"
    track_stlb_misses.unit = "STLB misses / 1000 accesses"
    track_walk_refs.unit = "walk references / 1000 accesses"
    track_walk_cycles.unit = "walk cycles / 1000 accesses"
    track_page_tables.unit = "bytes of page tables"
    track_rounding_waste.unit = "bytes lost to rounding"
