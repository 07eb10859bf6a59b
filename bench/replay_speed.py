"""How fast a replay is, and what it needs. Kernels are compiled in setup; only the replay is timed."""

from .grid import WORKLOADS, subject


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


class Start:
    """What a user waits for before anything happens."""

    version = "1"

    def timeraw_import(self):
        return "import pagewalk"

    def timeraw_front_door(self):
        return "import pagewalk.cli"


def peakmem_reference():
    """Python, numpy and numba alone: what every other peak includes."""
    from pagewalk.replay.engine import warm_up

    warm_up()
