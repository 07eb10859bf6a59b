"""A scenario of events as a result: every kernel's life replayed on every machine."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.replay.engine import replay
from pagewalk.replay.result import Result
from pagewalk.study.play.play import Played, digest, play
from pagewalk.study.replays import Subject, assumed, result
from pagewalk.study.scenario import Scenario

Lives = dict[tuple[str, str], Played]
"""What became of each kernel (by its name) on each page-table geometry."""


def lives_of(scenario: Scenario, machines: Sequence[Machine]) -> Lives:
    """Let every kernel of a scenario live through its events, once for each geometry that the machines have.

    Raises
    ------
    BadInput
        An event that cannot be; a kernel of another architecture than the machine.
    """
    lives: Lives = {}
    for machine in machines:
        for table in scenario.kernel:
            arch = table.arch or machine.geometry
            if arch != machine.geometry:
                what = f"{arch} is not {machine.geometry}, the page-table geometry of {machine.id}"
                raise BadInput(f"{scenario.file}: kernel {table.name}", what, "name another machine or arch")
            if (table.name, arch) not in lives:
                lives[table.name, arch] = play(scenario.name, table, arch, scenario.event, scenario.file)
    return lives


def played(
    scenario: Scenario,
    machines: Sequence[Machine],
    lives: Lives,
    command: str = "",
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Replay what the kernels' lives had accessed on every machine.

    Parameters
    ----------
    scenario : Scenario
        One with kernels and events.
    machines : sequence of Machine
    lives : dict
        As `lives_of` gives them for this scenario and these machines.
    command : str
        For the provenance.
    progress : callable, optional
        Called with the number of records replayed since the last call.
    """
    found = []
    for machine in machines:
        for table in scenario.kernel:
            one = lives[table.name, machine.geometry]
            cell = replay(one.trace, one.mapping, machine, cache_mode=scenario.cache_mode)
            found.append(msgspec.structs.replace(cell, notes=[*cell.notes, *assumed(machine)]))
            if progress is not None:
                progress(one.trace.accesses)
    kernels = [one.life for one in lives.values()]
    first = next(iter(lives.values())).trace
    about: dict[str, object] = {"kernel": ", ".join(dict.fromkeys(life.release for life in kernels))}
    content = digest(scenario.kernel, scenario.event)
    subject = Subject(replace(first, about=about, digest=lambda: content), None, 0.0)
    return msgspec.structs.replace(result(subject, machines, found, command), kernels=kernels)
