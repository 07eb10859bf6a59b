"""A result as terminal tables: the answer, then what it rests on, in ten seconds of reading.

Rich is imported when a table is made. It knows the terminal's width and obeys ``NO_COLOR``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pagewalk.replay.result import Replay, Result
from pagewalk.report import words
from pagewalk.report.entries import first_level
from pagewalk.report.sure import in_short, instructions
from pagewalk.study.compare import Caller, Comparison, by_machine, comparisons, measures, per_1000, together

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

CALLERS = 8
"""Callers shown before the rest are added up."""

NARROWEST = 64
"""Columns that the tables take at least; a narrower terminal wraps lines, and no figure is cut."""

DETAILED = 2
"""Machines up to which each gets its own tables; more share one table."""

SIDE_BY_SIDE = 4
"""Mappings up to which each has a column; more have a row each, with fewer figures."""

MANY_SHOW = ("walk cycles", "exposed cycles", "L1 DTLB misses", "page walks", "page tables", "rounding waste")

_COLOURS = {"base": "yellow", "pmd": "cyan"}


def show(result: Result, console: Console | None = None) -> None:
    """Print `result` to `console`, or to standard output.

    Parameters
    ----------
    result : Result
    console : rich.console.Console, optional
        Where to print; it decides width and colours. A narrower one is widened to `NARROWEST`.
    """
    from rich.console import Console

    console = console or Console()
    console.width = max(console.width, NARROWEST)
    for part in _parts(result, console.width):
        console.print(part, highlight=False)


def text(result: Result, width: int = 80) -> str:
    """What `show` prints, without colours, `width` columns wide."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    show(result, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def _parts(result: Result, width: int) -> Iterable[RenderableType]:
    from rich.markup import escape
    from rich.text import Text

    yield Text(words.heading(result.trace), style="dim")
    found = comparisons(result)
    machines = by_machine(result)
    if found:
        sentences = (
            map(words.verdict, found) if len(machines) <= DETAILED else [f"{words.verdict_of_all(found)}."]
        )
        yield ""
        yield f"[bold]{escape(chr(10).join(sentences))}[/]"
    if len(machines) > 1:
        for key in ("walk", "exposed"):
            yield ""
            yield _machines(machines, key, found)
    if len(machines) <= DETAILED:
        pairs = {comparison.after.machine: comparison for comparison in found}
        for machine, replays in machines.items():
            yield from _details(machine, replays, pairs.get(machine), width, result.trace.instructions)
    yield ""
    for note in (in_short(result), *_first_levels(found, result), *assumptions(result)):
        yield Text(f"- {note}", style="dim")


def _first_levels(found: Sequence[Comparison], result: Result) -> Iterable[str]:
    """Of each machine, as long as they are few."""
    for pair in found if len(found) <= DETAILED else ():
        machine = pair.after.machine
        if few := first_level(pair, result.provenance.machine_sha256.get(machine, "")):
            yield f"L1 DTLB misses rise on {machine}: its first level has {few}"


def _details(
    machine: str, replays: Sequence[Replay], pair: Comparison | None, width: int, instructions: int | None
) -> Iterable[RenderableType]:
    yield ""
    yield _measures(machine, replays, pair, instructions)
    if any(sum(replay.walk_refs_in.values()) for replay in replays):
        yield ""
        yield _found_in(replays)
    if pair and pair.callers:
        yield ""
        yield _callers(pair, width)


def _table(first: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column(Text(first, style="bold"), overflow="fold")
    for name in columns:
        table.add_column(Text(name, style=_COLOURS.get(name, "")), justify="right", no_wrap=True)
    return table


def _measures(
    machine: str, replays: Sequence[Replay], pair: Comparison | None, instructions: int | None
) -> Table:
    if len(replays) > SIDE_BY_SIDE:
        return _many(machine, replays)
    table = _table(
        f"{machine}, per 1000 accesses",
        *(replay.mapping for replay in replays),
        *([words.moved([replay.mapping for replay in replays], pair)] if pair else []),
    )
    for position, measure in enumerate(measures(replays, instructions)):
        in_bytes = measure.unit == "bytes"
        places = words.decimals(measure.values)
        cells = [words.size(v) if in_bytes else words.number(v, places) for v in measure.values]
        if pair:
            ends = pair.measures[position].values
            cells.append(words.difference(*ends) if in_bytes else words.relative(*ends))
        other = measure.unit in ("per walk", "per 1000 instructions")
        table.add_row(f"{measure.name} {measure.unit}" if other else measure.name, *cells)
    return table


def _many(machine: str, replays: Sequence[Replay]) -> Table:
    """A row for each mapping, where so many would not fit side by side."""
    shown = [m for m in measures(replays) if m.name in MANY_SHOW and m.unit != "per walk"]
    table = _table(f"{machine}, per 1000 accesses", *(measure.name.replace(" ", "\n") for measure in shown))
    for row, replay in enumerate(replays):
        table.add_row(
            replay.mapping,
            *(
                words.size(m.values[row])
                if m.unit == "bytes"
                else words.number(m.values[row], words.decimals(m.values))
                for m in shown
            ),
        )
    return table


def _found_in(replays: Sequence[Replay]) -> Table:
    levels = list(dict.fromkeys(level for replay in replays for level in replay.walk_refs_in))
    table = _table("walk references found in", *levels, "references")
    for replay in replays:
        parts = [replay.walk_refs_in.get(level, 0) for level in levels]
        table.add_row(replay.mapping, *words.shares(parts), words.millions(sum(parts)))
    return table


def _callers(pair: Comparison, width: int) -> Table:
    before, after = pair.before, pair.after
    wide = width >= 110
    table = _table(
        "walk cycles per 1000, by caller",
        *(["regions", "size", "leaf"] if wide else []),
        before.mapping,
        after.mapping,
        "change",
        "waste",
    )
    cut = CALLERS if len(pair.callers) > CALLERS + 1 else len(pair.callers)
    shown, rest = pair.callers[:cut], pair.callers[cut:]
    places = words.decimals(rate for caller in shown for rate in pair.rates(caller.walk_cycles))
    for caller in (*shown, *([together(rest)] if rest else [])):
        _caller_row(table, caller, pair, places, wide, width - (82 if wide else 48))
    return table


def _caller_row(
    table: Table, caller: Caller, pair: Comparison, places: int, wide: bool, name_width: int
) -> None:
    from rich.text import Text

    size = words.size(caller.size_bytes) if caller.size_bytes else ""
    leaf = caller.leaves[0] if caller.leaves[0] == caller.leaves[1] else " to ".join(caller.leaves)
    table.add_row(
        Text(words.shorten(caller.name, name_width)),
        *([f"{caller.regions}", size, leaf] if wide else []),
        *(words.number(rate, places) for rate in pair.rates(caller.walk_cycles)),
        words.relative(*caller.walk_cycles),
        words.difference(*caller.waste_bytes) if caller.paid_bytes else "",
    )


def _machines(machines: dict[str, list[Replay]], key: str, found: Sequence[Comparison]) -> Table:
    """One row for each machine: cycles of one kind under its mappings."""
    names = list(dict.fromkeys(replay.mapping for replays in machines.values() for replay in replays))
    table = _table(
        f"{key} cycles per 1000 accesses", *names, *([words.moved(names, found[0])] if found else [])
    )
    for machine, replays in machines.items():
        rates = {r.mapping: per_1000(r.cycles.get(key, 0), r.counts.get("accesses", 0)) for r in replays}
        places = words.decimals(rates.values())
        cells = [words.number(rates[name], places) if name in rates else "" for name in names]
        if len(rates) > 1:
            first, *_, last = ("base", "pmd") if {"base", "pmd"} <= rates.keys() else rates
            cells.append(words.relative(rates[first], rates[last]))
        table.add_row(machine, *cells)
    return table


def assumptions(result: Result) -> list[str]:
    """What was assumed on the way to `result`, each once, and what kind of figures these are."""
    notes = list(dict.fromkeys(note for replay in result.replays for note in replay.notes))
    notes.append(instructions(result.trace))
    modes = {replay.cache_mode for replay in result.replays}
    if modes == {"walks-only"}:
        notes.append("Page-table reads have the data caches to themselves (walks-only).")
    if modes == {"full"}:
        notes.append("Page-table reads share the data caches with the trace's own accesses (full).")
    notes.append(
        "Modelled, not measured: counts are exact for the model, which has no prefetch and no speculation."
    )
    return notes
