"""The baseline: what the model said of a grid of replays and kernels, and whether it still says so.

Every figure is an exact integer, the same on every machine, so any difference is a change of the model (or
of a trace or machine that it was given, which the baseline notices apart).
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct, field

from pagewalk import __version__
from pagewalk.errors import BadInput
from pagewalk.files import read_at_most
from pagewalk.hardware.load import load
from pagewalk.hardware.machine import Machine
from pagewalk.replay.result import Replay
from pagewalk.study.lives import Event, live
from pagewalk.study.replays import Subject, replays, subject

LARGEST_BYTES = 1 << 26
"""A file beyond it is no baseline. Ours."""

DEFAULT = Path("results/baseline.json")
"""Where the project keeps its own, seen from its root."""

Figures = dict[str, int]
Cells = dict[str, Figures]
"""``workload, machine, mapping`` or ``life, Linux release`` -> figures."""


class Grid(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is tracked: every workload on every machine under every mapping; every life in every release.

    Attributes
    ----------
    workloads : dict of str to str
        Name for people -> trace, as on the command line.
    machines, mappings : list of str
    lives : dict of str to list of Event
        Name for people -> what happens to a kernel's memory (`pagewalk.study.lives`).
    releases : list of str
    """

    workloads: dict[str, str]
    machines: list[str]
    mappings: list[str]
    lives: dict[str, list[Event]] = field(default_factory=dict)
    releases: list[str] = field(default_factory=list)


class Reason(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why the figures became what they are.

    Attributes
    ----------
    reason : str
    pagewalk : str
        The version that wrote them.
    figures_sha256 : str
        Of the figures then. The last is that of the file's figures: none changes without a reason.
    """

    reason: str
    pagewalk: str
    figures_sha256: str


class Baseline(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grid, the figures that it gave, and why.

    Attributes
    ----------
    grid : Grid
    inputs : dict of str to str
        SHA-256 of each trace and each machine description.
    figures : dict of str to dict of str to int
        Cell -> figure -> value. Empty in a new file.
    reasons : list of Reason
        Oldest first.
    """

    schema: Literal["pagewalk.baseline/1"] = "pagewalk.baseline/1"
    grid: Grid
    inputs: dict[str, str] = field(default_factory=dict)
    figures: Cells = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)


class Difference(NamedTuple):
    """A figure that moved. None: the figure is not there on that side."""

    cell: str
    figure: str
    old: int | None
    new: int | None


def figures(replay: Replay) -> Figures:
    """Every count of a replay, flat: ``stlb_misses``, ``cycles.walk``, ``memory.page_tables``, ``in.L1D``."""
    groups = (
        ("", replay.counts),
        ("cycles.", replay.cycles),
        ("memory.", replay.memory),
        ("in.", replay.walk_refs_in),
    )
    return {prefix + name: value for prefix, group in groups for name, value in group.items()}


@dataclass(frozen=True)
class Opened:
    """A grid with its traces and machines opened."""

    grid: Grid
    subjects: dict[str, Subject]
    machines: list[Machine]

    @property
    def records(self) -> int:
        """Records of all replays together."""
        one = sum(subject.trace.accesses for subject in self.subjects.values())
        return one * len(self.machines) * len(self.grid.mappings)

    @property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of each trace and each machine description."""
        return {f"trace {name}": subject.trace.digest() for name, subject in self.subjects.items()} | {
            f"machine {machine.id}": machine.sha256 for machine in self.machines
        }


def open_grid(grid: Grid) -> Opened:
    """Open the traces and machines of a grid; BadInput where one cannot be."""
    subjects = {name: subject(trace) for name, trace in grid.workloads.items()}
    return Opened(grid, subjects, [load(name) for name in grid.machines])


def measure(opened: Opened, progress: Callable[[int], None] | None = None) -> Cells:
    """Work out the whole grid; `progress` as of `pagewalk.study.replays.replays`."""
    grid = opened.grid
    replayed = {
        f"{name}, {found.machine}, {found.mapping}": figures(found)
        for name, trace in opened.subjects.items()
        for found in replays(trace, opened.machines, grid.mappings, progress=progress)
    }
    lived = {
        f"{name}, Linux {version}": live(events, version)
        for name, events in grid.lives.items()
        for version in grid.releases
    }
    return replayed | lived


def differences(old: Cells, new: Cells) -> Iterator[Difference]:
    """Every figure that differs, cell by cell."""
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name, {}), new.get(name, {})
        for figure in dict.fromkeys((*before, *after)):
            ends = before.get(figure), after.get(figure)
            if ends[0] != ends[1]:
                yield Difference(name, figure, *ends)


def read(path: Path) -> Baseline:
    """Read a baseline.

    Raises
    ------
    BadInput
        No such file, not a baseline, or its figures were edited without a reason.
    """
    try:
        found = msgspec.json.decode(read_at_most(path, LARGEST_BYTES), type=Baseline)
    except OSError as error:
        mend = "run this in the root of the project, or name a baseline"
        raise BadInput(path, error.strerror or "cannot be read", mend) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(path, f"not a pagewalk.baseline/1: {error}", "restore the committed file") from error
    if not (found.grid.workloads and found.grid.machines and found.grid.mappings):
        raise BadInput(path, "grid: nothing to replay", "name a workload, a machine and a mapping at least")
    if found.figures and (not found.reasons or found.reasons[-1].figures_sha256 != _digest(found.figures)):
        mend = "figures change by pagewalk check --update --reason only; restore the committed file"
        raise BadInput(path, "its figures are not those that the last reason was given for", mend)
    return found


def updated(old: Baseline, cells: Cells, inputs: dict[str, str], reason: str) -> Baseline:
    """The baseline with new figures, and why they are new."""
    why = Reason(reason=reason, pagewalk=__version__, figures_sha256=_digest(cells))
    return Baseline(grid=old.grid, inputs=inputs, figures=cells, reasons=[*old.reasons, why])


def encode(baseline: Baseline) -> bytes:
    """The baseline as JSON: a line for each figure, so that a change of it can be read in a diff."""
    return msgspec.json.format(msgspec.json.encode(baseline), indent=1) + b"\n"


def _digest(cells: Cells) -> str:
    return hashlib.sha256(msgspec.json.encode(cells, order="sorted")).hexdigest()
