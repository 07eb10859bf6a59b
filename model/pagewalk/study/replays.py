"""A trace under several mappings on several machines: the cells, and all of them as one result."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import msgspec

from pagewalk import __version__
from pagewalk.errors import BadInput
from pagewalk.hardware.figures import assumed_share
from pagewalk.hardware.load import names
from pagewalk.hardware.machine import Machine
from pagewalk.linux.geometry import geometry
from pagewalk.linux.layout import Layout, read_layout
from pagewalk.linux.mapping import Mapping, map_trace
from pagewalk.linux.observe.layouts import read_observed_layout
from pagewalk.linux.rules.releases import release
from pagewalk.replay.engine import replay
from pagewalk.replay.result import Provenance, Replay, Result, TraceFacts
from pagewalk.replay.together.cpus import by_cpu, merged
from pagewalk.trace.instructions import instructions
from pagewalk.trace.open import open_trace
from pagewalk.trace.trace import Trace


@dataclass(frozen=True)
class Subject:
    """A trace with the layout that was recorded with it, if there was one."""

    trace: Trace
    layout: Layout | None
    open_seconds: float

    def mapped(self, name: str, machine: Machine) -> Mapping:
        """The trace's pages under a mapping, in the page-table geometry of the machine's kernel."""
        recorded = self.layout.geometry if self.layout else None
        wanted = geometry(machine.geometry)
        return map_trace(
            self.trace.pages,
            self.layout,
            name,
            self.trace.page_shift,
            geometry=None if wanted == recorded else wanted,
            spaces=self.trace.spaces,
        )


def subject(path: str | Path, layout_file: Path | None = None, kernel: str = "") -> Subject:
    """Open a trace, and the layout that lies beside it or in a file of its own.

    Parameters
    ----------
    path : str or Path
    layout_file : Path, optional
        A ``/proc/vmallocinfo``, vmalloc trace events or a page-table dump of the traced kernel.
    kernel : str
        Its release; the one that the trace names unless given.

    Raises
    ------
    BadInput
        Neither a trace nor a format that has a reader, or damaged.
    """
    began = time.perf_counter()
    trace = open_trace(path)
    folder = trace.origin
    layout = read_layout(folder) if folder is not None and folder.is_dir() else None
    if layout_file is not None:
        named = kernel or str((trace.about or {}).get("kernel", ""))
        layout = read_observed_layout(layout_file, release(named) if named else None)
    return Subject(trace, layout, round(time.perf_counter() - began, 6))


def replays(
    subject: Subject,
    machines: Sequence[Machine],
    mappings: Sequence[str],
    *,
    fetches: bool | None = None,
    cache_mode: str = "walks-only",
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Replay]:
    """Replay every mapping on every machine, as many at once as there are CPUs.

    A trace of several CPUs is replayed in parts, where that is exact; where threads are left over, each
    replay has two.

    Parameters
    ----------
    subject : Subject
    machines : sequence of Machine
    mappings : sequence of str
    fetches, cache_mode
        As of `pagewalk.replay.engine.replay`.
    threads : int
        At once; 0: as many as this process may use CPUs. Does not change any count.
    progress : callable, optional
        Called with the number of records that were done since the last call, over all replays.
    """
    lock = Lock()

    def one(trace: Trace, parts: int, machine: Machine, mapping: Mapping) -> Replay:
        done = 0

        def advance(records: int) -> None:
            nonlocal done
            if progress is not None:
                with lock:
                    progress(records // parts - done)
            done = records // parts

        return replay(
            trace,
            mapping,
            machine,
            fetches=fetches,
            cache_mode=cache_mode,
            progress=advance,
            threads=each,
        )

    def whole(machine: Machine, parts: list[Future[Replay]]) -> Replay:
        found = merged([part.result() for part in parts])
        return msgspec.structs.replace(
            found,
            seconds={**found.seconds, "open": subject.open_seconds},
            notes=[*found.notes, *assumed(machine)],
        )

    cells = [(machine, subject.mapped(name, machine)) for machine in machines for name in mappings]
    if not cells:
        raise BadInput("replay", "no machine or no mapping", "name at least one of each")
    threads = threads or len(os.sched_getaffinity(0))
    parted = [by_cpu(subject.trace, mapping, machine, threads) for machine, mapping in cells]
    each = threads // sum(map(len, parted))
    with ThreadPoolExecutor(threads) as pool:
        running = [
            [pool.submit(one, part, len(parts), machine, mapping) for part in parts]
            for (machine, mapping), parts in zip(cells, parted, strict=True)
        ]
        try:
            return [whole(machine, parts) for (machine, _), parts in zip(cells, running, strict=True)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def assumed(machine: Machine) -> list[str]:
    """Say how much of a machine is assumed, in a note; none where all is known."""
    some, every = assumed_share(machine)
    name = machine.id if machine.id in names() else f"{machine.id}.toml"
    return (
        [f"{some} of {every} figures of {machine.id} are assumed: pagewalk machines {name}"] if some else []
    )


def result(subject: Subject, machines: Sequence[Machine], found: list[Replay], command: str = "") -> Result:
    """Put replays of one trace together with what made them."""
    trace = subject.trace
    kernel = (trace.about or {}).get("kernel", "")
    executed = instructions(trace)
    return Result(
        trace=TraceFacts(
            name=trace.name,
            accesses=max(r.counts["accesses"] for r in found),
            distinct_base_pages=len(trace.pages),
            records=trace.accesses,
            cpus=trace.cpus,
            instructions=executed.number,
            instructions_told_by=executed.told_by,
        ),
        replays=found,
        provenance=Provenance(
            pagewalk=__version__,
            machine_sha256={m.id: m.sha256 for m in machines},
            trace_sha256=trace.digest(),
            kernel=str(kernel),
            command=command,
            environment={
                "python": platform.python_version(),
                "numpy": version("numpy"),
                "numba": version("numba"),
                "os": platform.system(),
            },
        ),
    )
