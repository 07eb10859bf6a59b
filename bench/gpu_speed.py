"""Second levels on a GPU; skipped where there is none. `pagewalk doctor` names the one that was timed."""

STREAMS = ("synth:uniform?size=256M&accesses=20000000", "synth:zipf?size=1G&accesses=20000000")
MACHINES = ("textbook-setassoc", "textbook-fullassoc")
TABLES = {"128 numbers of sets by 32 ways": 32, "4096 numbers of sets": 1}
"""4096 second levels: so many ways of each number of sets."""


class Sweep:
    """4096 second levels over a numbered trace: the first level, copies, second levels, counts."""

    params = (STREAMS, MACHINES, tuple(TABLES))
    param_names = ("stream", "machine", "second levels")
    version = "1"
    timeout = 600

    def setup(self, stream, machine, tables):
        from pagewalk.errors import BadInput
        from pagewalk.hardware.load import load
        from pagewalk.replay.together.gpu import find_gpu
        from pagewalk.replay.together.together import together
        from pagewalk.study.replays import subject
        from pagewalk.study.sweep.grid import changed

        try:
            gpu = find_gpu()
        except BadInput as error:
            raise NotImplementedError from error  # asv skips the benchmark
        opened, hardware = subject(stream), load(machine)
        mapped, most = opened.mapped("base", hardware), TABLES[tables]
        machines = [
            changed(hardware, {"tlb.STLB.entries": sets * ways, "tlb.STLB.ways": ways})
            for sets in range(1, 4096 // most + 1)
            for ways in range(33 - most, 33)
        ]
        self.run = lambda: together(opened.trace, mapped, machines, gpu=gpu)
        self.configuration_accesses = len(machines) * opened.trace.accesses
        self.run()

    def time_sweep(self, stream, machine, tables):
        self.run()

    def track_picoseconds(self, stream, machine, tables):
        """A configuration and access: 1000 divided by it are billions of them a second."""
        import time

        began = time.perf_counter()
        self.run()
        return (time.perf_counter() - began) * 1e12 / self.configuration_accesses

    track_picoseconds.pretty_name = "Sweep on a GPU: a configuration and access"
    track_picoseconds.unit = "ps"


class Kernel:
    """The kernel alone: misses that wait on the host, through 4096 two-level machines without walk caches."""

    params = (tuple(TABLES), (1 << 14, 1 << 17))
    param_names = ("second levels", "units")
    version = "1"
    timeout = 600

    def setup(self, tables, units):
        import numpy as np

        from pagewalk.errors import BadInput
        from pagewalk.replay.together.gpu import find_gpu

        try:
            gpu = find_gpu()
        except BadInput as error:
            raise NotImplementedError from error
        from pagewalk.kernels.gpu import device

        sets = np.arange(1, 4096 // TABLES[tables] + 1)
        none = np.zeros(0, np.int64)
        byte = np.zeros(units, np.int8)
        set_of = np.array([(np.arange(units) % count).astype(np.uint16) for count in sets])
        walks = np.zeros((0, units), np.uint32)
        second = device.Second(set_of, sets, byte, 1, byte, walks, none, none, 0)
        self.on = device.power_on(gpu.device, second)
        self.unit = np.random.default_rng(1).integers(0, units, 1 << 22).astype(np.int32)
        self.send, self.counted = device.send, device.counted
        self.time_kernel(tables, units)

    def time_kernel(self, tables, units):
        """4,194,304 misses; units in 16 bits, and in 32."""
        self.send(self.on, self.unit)
        self.counted(self.on)
