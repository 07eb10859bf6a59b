"""Many configurations at once: what a cell costs when others share its work. Setup compiles the kernels."""

import tempfile
from pathlib import Path

STREAMS = {
    "random 256 MiB": "synth:uniform?size=256M&accesses=2000000",
    "zipf 1 GiB": "synth:zipf?size=1G&accesses=2000000",
    "sequential": "synth:sequential?size=256M&accesses=2000000",
}


class Curve:
    """Every LRU size of one stream: what is timed are the kernels, over accesses that are in memory."""

    params = (tuple(STREAMS),)
    param_names = ("stream",)
    version = "1"

    def setup(self, stream):
        import numpy as np

        from pagewalk.kernels.lru import tables
        from pagewalk.kernels.sizes import distances, set_stacks
        from pagewalk.trace.open import open_trace

        trace = open_trace(STREAMS[stream])
        self.page = np.concatenate([chunk.page for chunk in trace.chunks()]).astype(np.uint32)
        unit = np.arange(len(trace.pages), dtype=np.int32)
        number = trace.pages.astype(np.int64)
        place = tables.make_places(unit, number & 15, number & 1023)

        def every_set_count():
            rows, stacks = tables.make_rows(np.full(16, 4)), set_stacks.make_set_stacks(11)
            set_stacks.all_set_counts(self.page, place, rows, stacks, np.full(1, -1))

        def every_size():
            stack, depths = distances.make_stack(len(unit)), np.zeros(len(unit) + 1, np.int64)
            distances.stack_distances(self.page, unit, stack, depths)

        self.every_set_count, self.every_size = every_set_count, every_size
        every_set_count()
        every_size()

    def time_every_set_count(self, stream):
        """1 to 1024 sets by 1 to 32 ways behind an L1 of 64 entries in 4 ways: 352 configurations."""
        self.every_set_count()

    def time_every_size(self, stream):
        """Fully associative."""
        self.every_size()


class Sweep:
    """Second levels of one machine over one trace, in one thread."""

    params = (("sample:gitdiff", STREAMS["random 256 MiB"]), (1, 10, 100, 1000))
    param_names = ("trace", "cells")
    version = "1"
    timeout = 600

    def setup(self, trace, cells):
        from pagewalk.hardware.load import load
        from pagewalk.replay.together.together import together
        from pagewalk.study.replays import subject
        from pagewalk.study.sweep.grid import changed

        opened, machine = subject(trace), load("textbook-setassoc")
        mapping = opened.mapped("base", machine)
        sizes = [(sets, ways) for ways in range(1, 33) for sets in range(1, 1025, 32)]
        machines = [
            changed(machine, {"tlb.STLB.entries": sets * ways, "tlb.STLB.ways": ways})
            for sets, ways in sizes[-cells:]
        ]
        self.run = lambda: together(opened.trace, mapping, machines)
        self.run()

    def time_together(self, trace, cells):
        self.run()


class WalkCaches:
    """30 second levels with so many sizes of PDE caches behind each, over one trace, in one thread."""

    params = (("sample:gitdiff", STREAMS["random 256 MiB"]), (1, 4))
    param_names = ("trace", "PDE caches")
    version = "1"

    def setup(self, trace, caches):
        from pagewalk.hardware.load import load
        from pagewalk.replay.together.together import together
        from pagewalk.study.replays import subject
        from pagewalk.study.sweep.grid import changed

        opened, machine = subject(trace), load("textbook-setassoc")
        mapping = opened.mapped("base", machine)
        machines = [
            changed(
                machine,
                {
                    "tlb.STLB.entries": entries,
                    "tlb.STLB.ways": ways,
                    "psc.PDE cache.entries": 16 << cache,
                },
            )
            for cache in range(caches)
            for entries in (128, 256, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096)
            for ways in (4, 8, 16)
        ]
        self.run = lambda: together(opened.trace, mapping, machines)
        self.run()

    def time_together(self, trace, caches):
        self.run()


class Threads:
    """Two machines by two mappings, with so many threads."""

    params = (1, 2, 4)
    param_names = ("threads",)
    version = "1"

    def setup(self, threads):
        from pagewalk.hardware.load import load
        from pagewalk.study.replays import replays, subject

        opened = subject(STREAMS["random 256 MiB"])
        machines = [load("textbook-setassoc"), load("textbook-fullassoc")]
        self.run = lambda: replays(opened, machines, ["base", "pmd"], threads=threads)
        self.run()

    def time_replays(self, threads):
        self.run()


class Cluster:
    """64 short cells that share nothing, by threads and on a Dask cluster of one worker thread."""

    params = (("threads", "Dask"),)
    param_names = ("where",)
    version = "1"

    def setup(self, where):
        from pagewalk.study.sweep.grid import Sweep as Grid
        from pagewalk.study.sweep.run import sweep

        grid = Grid(
            schema="pagewalk.sweep/1",
            traces=["synth:zipf?size=16M&accesses=20000"],
            machines=["textbook-setassoc"],
            mappings=["base"],
            vary={"memory.latency_cycles": list(range(100, 164))},
        )
        self.cluster = self.client = executor = None
        if where == "Dask":
            try:
                import distributed
            except ImportError as error:
                raise NotImplementedError from error  # asv skips the benchmark
            self.cluster = distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
            )
            self.client = distributed.Client(self.cluster)
            executor = self.client.get_executor()

        def run():
            with tempfile.TemporaryDirectory() as folder:
                sweep(grid, Path(folder), executor, share=False)

        self.run = run
        run()

    def teardown(self, where):
        if self.client is not None:
            self.client.close()
            self.cluster.close()

    def time_sweep(self, where):
        self.run()
