"""Machines as terminal tables: all at a glance, or one with every figure, its source, and what is assumed.

Rich is imported when a table is made. It knows the terminal's width and obeys ``NO_COLOR``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pagewalk.hardware.figures import assumed_share, differences, figures
from pagewalk.hardware.machine import Machine, Tlb, tables

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

FULL = 80
"""Columns that the list of all machines takes whole."""


def cited(machine: Machine, sources: Mapping[str, str]) -> dict[str, str]:
    """Those of the sources that the machine's tables name."""
    said = " ".join(" ".join((table.source, *table.assumed.values())) for _, table in tables(machine))
    words = set(re.findall(r"[\w-]+", said))
    return {name: text for name, text in sources.items() if name in words}


def show_list(
    machines: Iterable[Machine], not_modelled: Mapping[str, str], console: Console | None = None
) -> None:
    """Print a few lines for each machine: its TLBs, its PSCs, how much is assumed.

    Parameters
    ----------
    machines : iterable of Machine
    not_modelled : mapping of str to str
        Processors without a description -> why.
    console : rich.console.Console, optional
        Where to print; it decides width and colours.
    """
    from rich.table import Table
    from rich.text import Text

    console = _console(console)
    narrow = console.width < FULL
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("machine", min_width=20 if narrow else 27, overflow="fold")
    for head in ("L1 DTLB", "second level", *([] if narrow else ["PSC"])):
        table.add_column(head, no_wrap=True)
    table.add_column("assumed", justify="right", no_wrap=True)
    for machine in machines:
        some, every = assumed_share(machine)
        table.add_row(
            Text.assemble((machine.id, "bold"), (f"\n{machine.name}\n{machine.geometry}", "dim")),
            Text(_arrays(tlb for tlb in machine.tlb if tlb.level == 1 and "load" in tlb.serves)),
            Text(_arrays(tlb for tlb in machine.tlb if tlb.level == 2 and "load" in tlb.serves)),
            *([] if narrow else [Text(_pscs(machine))]),
            Text(f"{some} of {every}", style="yellow" if some else ""),
        )
    console.print(table)
    pscs = "pagewalk machines NAME shows PSCs." if narrow else "PSC: entries, lowest level first."
    console.print(f"\nTLBs: entries x ways, leaf sizes. {pscs}")
    console.print("assumed: figures that no source gives as they stand.")
    for name, why in not_modelled.items():
        console.print(Text(f"{name} has no preset: {why}.", style="dim"))


def _pscs(machine: Machine) -> str:
    return "/".join(str(entries) for _, entries in sorted((psc.level, psc.entries) for psc in machine.psc))


def _arrays(found: Iterable[Tlb]) -> str:
    def one(tlb: Tlb) -> str:
        shape = f"{tlb.entries:,}" + (f"x{tlb.ways}" if tlb.ways else " full")
        return shape + (f" {'+'.join(tlb.holds)}" if len(tlb.holds) in (1, 2) else "")

    return "\n".join(map(one, found))


def show_differences(first: Machine, second: Machine, console: Console | None = None) -> None:
    """Print the figures in which two machines differ."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("table", "figure", first.id, second.id):
        table.add_column(head, overflow="fold")
    found = differences(first, second)
    for difference in found:
        table.add_row(*difference)
    console = _console(console)
    if found:
        console.print(table)
    else:
        console.print(f"{first.id} and {second.id} differ in no figure.")


def show(machine: Machine, sources: Mapping[str, str], console: Console | None = None) -> None:
    """Print every figure of a machine with where it comes from.

    Parameters
    ----------
    machine : Machine
    sources : mapping of str to str
        Source name -> publication; those that the machine names are printed.
    console : rich.console.Console, optional
        Where to print; it decides width and colours.
    """
    console = _console(console)
    for part in _parts(machine, sources):
        console.print(part)


def _console(console: Console | None) -> Console:
    from rich.console import Console

    return console or Console(highlight=False, soft_wrap=False)


def _parts(machine: Machine, sources: Mapping[str, str]) -> Iterator[RenderableType]:
    from rich.text import Text

    some, every = assumed_share(machine)
    yield Text(machine.name, style="bold")
    yield Text(f"{machine.id}, sha256 {machine.sha256[:16]}", style="dim")
    yield Text(f"{some} of {every} figures are assumed or derived, marked *; the rest are the source's.\n")
    yield _figures(machine)
    events = {output: "\n".join(names) for output, names in machine.perf_events.items()}
    for heading, pairs in (
        ("Unknown, and not modelled", machine.unknown),
        ("Hardware events to set beside the model's figures (perf stat -e)", events),
        ("Sources", cited(machine, sources)),
    ):
        if pairs:
            yield Text(f"\n{heading}", style="bold")
            yield _pairs(pairs)


def _pairs(pairs: Mapping[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for left, right in pairs.items():
        grid.add_row(Text(f"  {left}"), Text(right, overflow="fold"))
    return grid


def _figures(machine: Machine) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for ratio in (3, 3, 8):
        grid.add_column(ratio=ratio, overflow="fold")
    for key, table in tables(machine):
        title = str(getattr(table, "name", key)) if key else "machine"
        if level := getattr(table, "level", 0):
            title += f", level {level}"
        source = f"{table.source} [{table.confidence}]" if table.source else ""
        grid.add_row(Text(title, style="bold"), Text(""), Text(source))
        for figure in sorted(figures(table), key=lambda figure: bool(figure.assumed)):
            mark, style = ("*", "yellow") if figure.assumed else (" ", "")
            name = Text(f"{mark} {figure.name}", style=style)
            grid.add_row(name, Text(figure.value), Text(figure.assumed, style="dim"))
    return grid
