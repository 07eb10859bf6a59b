"""Every parameter of a page's machines, with its source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pagewalk.errors import BadInput
from pagewalk.hardware.figures import Figure as Parameter
from pagewalk.hardware.figures import assumed_share, figures
from pagewalk.hardware.load import load, sources
from pagewalk.hardware.machine import tables
from pagewalk.replay.result import Result
from pagewalk.report.catalogue.machines import cited
from pagewalk.study.compare import by_machine


class Described(NamedTuple):
    """A machine's parameters; `missing` says why they are not there."""

    name: str
    title: str
    share: str
    missing: str
    rows: list[tuple[str, str, list[Parameter]]]
    """Table, its source, its figures."""
    cited: dict[str, str]
    unknown: dict[str, str]
    events: dict[str, list[str]]


def described(results: Iterable[Result]) -> list[Described]:
    """Every machine of the results, as pagewalk describes it today."""
    named: dict[str, str] = {}
    for result in results:
        for machine in by_machine(result):
            named.setdefault(machine, result.provenance.machine_sha256.get(machine, ""))
    return [_parameters(name, digest) for name, digest in named.items()]


def _parameters(name: str, digest: str) -> Described:
    nothing = Described(name, "", "", "", [], {}, {}, {})
    try:
        machine = load(name)
    except BadInput:
        return nothing._replace(missing="a machine file that is not at hand; its figures stand there")
    if digest and machine.sha256 != digest:
        return nothing._replace(missing="described otherwise today than when this result was made")
    some, every = assumed_share(machine)
    rows = []
    for key, table in tables(machine):
        title = str(getattr(table, "name", key)) if key else "machine"
        rows.append((title, table.source, figures(table)))
    return Described(
        name,
        machine.name,
        f"{some} of {every}",
        "",
        [row for row in rows if row[2]],
        cited(machine, sources()),
        machine.unknown,
        machine.perf_events,
    )
