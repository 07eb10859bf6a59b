"""How fast a trace is cut, looked at and sampled: records of the whole a second of CPU time, in millions.

On the packaged kernel trace, 16.8 million records. Beside a sample stands the whole replay that it saves: the
same two mappings on the same machine.
"""

import tempfile
from pathlib import Path

from .reading_speed import millions

TRACE, MACHINE, MAPPINGS = "sample:gitdiff", "intel-skylake-sp", ("base", "pmd")
RANGE = (0xFFFF_8880_0000_0000, 0xFFFF_C880_0000_0000)
"""The direct map (Linux 6.1 Documentation/x86/x86_64/mm.rst): two fifths of the data accesses."""


def _opened():
    from pagewalk.trace.open import open_trace

    return open_trace(TRACE)


def _cut():
    from pagewalk.trace.cut import Wanted, cut

    trace = _opened()
    _written(cut(trace, 0, trace.accesses, Wanted(ranges=(RANGE,))))


def _written(trace):
    from pagewalk.trace.store.write import write_trace

    with tempfile.TemporaryDirectory() as folder:
        write_trace(trace, Path(folder) / "trace")


def _density():
    from pagewalk.trace.density import density

    density(_opened())


def _facts():
    from pagewalk.trace.facts import facts

    facts(_opened())


def _sample():
    from pagewalk.hardware.load import load
    from pagewalk.study.replays import subject
    from pagewalk.study.sampling.answer import sampled

    sampled(subject(TRACE), [load(MACHINE)], MAPPINGS)


def _replay():
    from pagewalk.hardware.load import load
    from pagewalk.replay.engine import replay
    from pagewalk.study.replays import subject

    opened, machine = subject(TRACE), load(MACHINE)
    for mapping in MAPPINGS:
        replay(opened.trace, opened.mapped(mapping, machine), machine)


WORK = {
    "trace convert --range": _cut,
    "trace info": _facts,
    "trace info --plot": _density,
    "sample": _sample,
    "the whole replay": _replay,
}


class Part:
    """One piece of work over the whole trace."""

    params = (tuple(WORK),)
    param_names = ("work",)
    version = "1"
    timeout = 300

    def setup(self, work):
        self.count = _opened().accesses
        WORK[work]()

    def track_part(self, work):
        return millions(WORK[work], self.count)

    track_part.pretty_name = "Cut, look at, sample"
    track_part.unit = "million records / s of CPU time"
