"""How fast a replay is, and what it needs. Kernels are compiled in setup; only the replay is timed."""

from pathlib import Path

from .grid import WORKLOADS, subject

RECORDED = Path(__file__).parents[2] / "shared" / "traces"
"""Recordings of kernels that are too large for the repository; without them asv leaves `Kernel` out."""


class Replay:
    """One replay of a workload on one machine."""

    params = (tuple(WORKLOADS), ("textbook-setassoc", "intel-skylake-sp"))
    param_names = ("workload", "machine")
    version = "1"

    def setup(self, workload, machine):
        from pagewalk.hardware.load import load
        from pagewalk.replay.engine import replay, warm_up

        warm_up()
        opened = subject(workload)
        described = load(machine)
        mapping = opened.mapped("base", described)
        self.run = lambda: replay(opened.trace, mapping, described)
        self.run()

    def time_replay(self, workload, machine):
        self.run()

    def peakmem_replay(self, workload, machine):
        self.run()


class Stream:
    """Classes of streams; a machine whose walks cost the same, one with data caches, one that is not LRU."""

    params = (
        ("uniform?size=256M", "zipf?size=1G", "sequential?size=256M", "chase?size=8M"),
        ("textbook-setassoc", "intel-ice-lake-sp", "intel-skylake-sp"),
    )
    param_names = ("stream", "machine")
    version = "1"
    accesses = 2_000_000

    def setup(self, stream, machine):
        made(self, f"synth:{stream}&accesses={self.accesses}", machine)

    def time_replay(self, stream, machine):
        self.run()


class Kernel:
    """Whole recordings of a kernel, from compressed files."""

    params = (
        ("gitdiff", "fdtable", "bpfhash"),
        ("textbook-setassoc", "intel-ice-lake-sp", "intel-skylake-sp"),
    )
    param_names = ("trace", "machine")
    version = "1"
    timeout = 300

    def setup(self, trace, machine):
        if not (RECORDED / trace).is_dir():
            raise NotImplementedError  # asv skips the benchmark
        made(self, RECORDED / trace, machine)

    def time_replay(self, trace, machine):
        self.run()


class Threads:
    """One replay by so many threads: TLBs in one, walks in the other. Wall time."""

    params = (
        ("uniform?size=256M", "zipf?size=1G"),
        ("textbook-setassoc", "intel-skylake-sp"),
        (1, 2),
    )
    param_names = ("stream", "machine", "threads")
    version = "1"

    def setup(self, stream, machine, threads):
        made(self, f"synth:{stream}&accesses=2000000", machine, threads)

    def time_replay(self, stream, machine, threads):
        self.run()


class Length:
    """The price of a replay against the length of the trace; it must grow linearly."""

    params = ((1 << 18, 1 << 20, 1 << 22), ("textbook-setassoc", "intel-ice-lake-sp"))
    param_names = ("accesses", "machine")
    version = "1"

    def setup(self, accesses, machine):
        made(self, f"synth:uniform?size=64M&accesses={accesses}", machine)

    def time_replay(self, accesses, machine):
        self.run()

    def peakmem_replay(self, accesses, machine):
        self.run()


class Pages:
    """The price of mapping, translation and replay against the distinct pages of the trace."""

    params = (("16M", "256M", "4G"), ("textbook-setassoc", "intel-ice-lake-sp"))
    param_names = ("size", "machine")
    version = "1"

    def setup(self, size, machine):
        made(self, f"synth:uniform?size={size}&accesses=2000000", machine)

    def time_replay(self, size, machine):
        self.run()

    def peakmem_replay(self, size, machine):
        self.run()


def made(benchmark, trace, machine, threads=1):
    """Open a trace, compile what its replay needs, and leave the whole replay in `benchmark.run`."""
    from pagewalk.hardware.load import load
    from pagewalk.replay.engine import replay
    from pagewalk.study.replays import subject

    opened, described = subject(trace), load(machine)
    benchmark.run = lambda: replay(opened.trace, opened.mapped("base", described), described, threads=threads)
    benchmark.run()


def _fill_cache():
    """Compile what is not compiled yet."""
    from pagewalk.replay.engine import warm_up

    warm_up()


class Start:
    """What a user waits for before anything happens."""

    version = "1"
    timeout = 300

    def timeraw_first_start(self):
        return """
        import os, tempfile
        with tempfile.TemporaryDirectory() as empty:
            os.environ["PAGEWALK_CACHE_DIR"] = empty
            from pagewalk.replay.engine import warm_up
            warm_up()
        """

    def timeraw_second_start(self):
        return "from pagewalk.replay.engine import warm_up; warm_up()"

    timeraw_second_start.setup = _fill_cache

    def timeraw_import(self):
        return "import pagewalk"

    def timeraw_front_door(self):
        return "import pagewalk.cli"


def peakmem_reference():
    """Python, numpy and numba alone: what every other peak includes."""
    from pagewalk.replay.engine import warm_up

    warm_up()
