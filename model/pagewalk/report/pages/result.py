"""Results as one page: the answer, what it rests on, and every parameter with its source."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from pagewalk.replay.result import Replay, Result
from pagewalk.report import words
from pagewalk.report.entries import first_level
from pagewalk.report.figures import over_time, price
from pagewalk.report.pages.beside import Rows, changed_cell, curve_picture, heat, moves, saved
from pagewalk.report.pages.html import Cell, Picture, bars, picture, render
from pagewalk.report.pages.parameters import described
from pagewalk.report.studies.kernel_life import along_events, message
from pagewalk.report.sure import assumed_latencies, measured
from pagewalk.report.tables import assumptions
from pagewalk.study.compare import (
    Caller,
    Comparison,
    Measure,
    by_machine,
    change,
    compare,
    comparisons,
    measures,
    per_1000,
    together,
)
from pagewalk.study.curve import Curves
from pagewalk.study.validation.standing import outcomes
from pagewalk.study.validation.validate import Validation

CALLERS = 12
"""Callers in a table before the rest are added up."""

OPEN = 2
"""Machines of a result whose details are open; those of more are there to be opened."""


class Named(NamedTuple):
    """A result, and what to call it."""

    name: str
    result: Result


class Beside(NamedTuple):
    """What stands beside results: sweeps by name, curves, validations."""

    sweeps: Sequence[tuple[str, Rows]] = ()
    curves: Sequence[Curves] = ()
    validations: Sequence[Validation] = ()


NOTHING = Beside()

TILES = (
    ("walk cycles", "per 1000 accesses"),
    ("exposed cycles", "per 1000 accesses"),
    ("page walks", "per 1000 accesses"),
    ("STLB misses", "per 1000 instructions"),
    ("touched memory in reach", "bytes"),
)
"""What the first screen shows, where it is known."""


class Tile(NamedTuple):
    """A figure of the first screen."""

    name: str
    value: str
    change: str
    mood: str
    """good, bad, or neither."""


class Row(NamedTuple):
    """A row of a table: its head, a line below that, cells, and what changes."""

    name: str
    below: str
    cells: list[Cell]
    change: str = ""
    paid: str = ""


class Stack(NamedTuple):
    """A bar of shares."""

    name: str
    total: str
    parts: list[tuple[str, str, float, int]]
    """Name, percent as text, share, depth of colour in percent."""


class Details(NamedTuple):
    """One machine's part of a result."""

    anchor: str
    machine: str
    verdict: str
    mappings: list[str]
    moved: str
    """Head of the column of changes."""
    measures: list[Row]
    stacks: list[tuple[str, list[Stack]]]
    who: str
    callers: list[Row]
    pictures: list[tuple[str, str, Picture]]
    """Heading, message, picture."""


class Section(NamedTuple):
    """One result's part of the page."""

    anchor: str
    name: str
    heading: str
    life: tuple[str, Picture] | None
    """What happened to a modelled kernel's memory: its message, and the picture."""
    machines: list[Details]
    notes: list[str]
    facts: list[tuple[str, str]]


def page(results: Sequence[Named], beside: Beside = NOTHING) -> str:
    """Make the page.

    Parameters
    ----------
    results : sequence of Named
        With several, a map of all machines and results comes first. None: a page of what stands beside.
    beside : Beside

    Returns
    -------
    str
        HTML. The same content gives the same text.
    """
    sections = [_section(number, named) for number, named in enumerate(results, 1)]
    found = [pair for named in results for pair in comparisons(named.result)]
    single = results[0].result if len(results) == 1 else None
    machines = list(dict.fromkeys(name for named in results for name in by_machine(named.result)))
    sweeps = [heat(*one) for one in beside.sweeps]
    curves = [curve_picture(f"c{n}", one, machines) for n, one in enumerate(beside.curves, 1)]
    about = single.trace.name if single else f"{len(results)} results" if results else "sweeps and curves"
    return render(
        "result.html",
        title=f"{about}: what larger pages change",
        answer=_answer(results)
        if results
        else [*(s.message for s in sweeps), *(c.message for c in curves)][0],
        lead=[words.verdict(found[0])] if single and len(found) == 1 else [],
        tiles=_tiles(found[0]) if len(found) == 1 else [],
        overview=_overview(results) if len(results) > 1 or len(machines) > 1 else None,
        sections=sections,
        open=OPEN,
        sweeps=sweeps,
        curves=curves,
        sure=_sure(results, beside.validations),
        machines=described(named.result for named in results),
    )


def _sure(results: Sequence[Named], validations: Sequence[Validation]) -> list[str]:
    """What measurements say of the machines, and what latencies that nobody published may do."""
    more = [case for found in validations for case in outcomes(found).cases]
    said = measured((named.result for named in results), more)
    pairs = [(pair, named.result) for named in results for pair in comparisons(named.result)]
    if len(pairs) == 1:
        (pair, result), *_ = pairs
        said.append(assumed_latencies(pair, result.provenance.machine_sha256.get(pair.after.machine, "")))
    return [sentence for sentence in said if sentence]


def _answer(results: Sequence[Named]) -> str:
    if len(results) == 1:
        return words.answer(results[0].result)
    found = [pair for named in results for pair in comparisons(named.result)]
    moved = [moved for pair in found if (moved := change(*words.headline(pair).values)) is not None]
    if not moved:
        return f"{len(results)} results, with nothing to compare in any"
    name, mappings = words.headline(found[0]).name, {pair.after.mapping for pair in found}
    if len(mappings) > 1:
        return f"From mapping to mapping, {name} change by {moves(moved)} in {len(results)} results"
    mapping, said = words.mapping(mappings.pop()), moves(moved)
    if max(moved) < 0:
        return f"{mapping} save {saved(moved)} of the {name} in {len(results)} results"
    return f"With {mapping}, {name} change by {said} in {len(results)} results"


def _tiles(pair: Comparison) -> list[Tile]:
    tiles = []
    for measure in pair.measures:
        if (measure.name, measure.unit) not in TILES:
            continue
        before, after = measure.values
        in_bytes = measure.unit == "bytes"
        places = words.decimals(measure.values)
        text = [words.size(v) if in_bytes else words.number(v, places) for v in measure.values]
        better = after > before if in_bytes else after < before
        mood = "" if before == after else "good" if better else "bad"
        moved = words.difference(before, after) if in_bytes else words.relative(before, after)
        unit = "" if in_bytes else f", {measure.unit}"
        tiles.append(Tile(f"{measure.name}{unit}", " → ".join(text), moved, mood))
    paid = pair.paid_bytes
    mood = "" if not paid else "bad" if paid > 0 else "good"
    tiles.append(Tile("page tables and rounding", words.difference(0, paid), "", mood))
    return tiles


def _overview(results: Sequence[Named]) -> dict[str, object]:
    """Change of the headline figure for each machine (row) and result (column), as a heat map."""
    machines = list(dict.fromkeys(name for named in results for name in by_machine(named.result)))
    columns = [{pair.after.machine: pair for pair in comparisons(named.result)} for named in results]
    rows = [(machine, [_heat(column.get(machine)) for column in columns]) for machine in machines]
    pairs = [pair for column in columns for pair in column.values()]
    compared = {f"{pair.before.mapping} to {pair.after.mapping}" for pair in pairs}
    what = words.headline(pairs[0]).name if pairs else "nothing to compare"
    mappings = compared.pop() if len(compared) == 1 else "from the first to the last mapping of each"
    return {
        "columns": [named.name for named in results],
        "rows": rows,
        "caption": f"{what.capitalize()} per 1000 accesses, {mappings}: blue is saved, orange is added.",
    }


def _heat(pair: Comparison | None) -> Cell:
    return changed_cell(_ends(words.headline(pair))) if pair else Cell("-")


def _ends(measure: Measure) -> tuple[float, float]:
    before, after = measure.values
    return before, after


def _section(number: int, named: Named) -> Section:
    result = named.result
    pairs = {pair.after.machine: pair for pair in comparisons(result)}
    machines = [
        _details(f"r{number}m{place}", result, machine, replays, pairs.get(machine))
        for place, (machine, replays) in enumerate(by_machine(result).items(), 1)
    ]
    life = None
    if result.kernels:
        said = message(result.kernels)
        life = said, picture(partial(along_events, result), f"r{number}-life", said)
    return Section(
        f"r{number}",
        named.name,
        words.heading(result.trace),
        life,
        machines,
        assumptions(result),
        _facts(result),
    )


def _details(
    anchor: str, result: Result, machine: str, replays: Sequence[Replay], pair: Comparison | None
) -> Details:
    mappings = [replay.mapping for replay in replays]
    shown = pair or compare(replays[0], replays[0], result.trace.instructions)
    pictures = [
        (
            "Over time",
            words.when(shown),
            picture(partial(over_time, result, machine), f"{anchor}-time", _time_alt(shown, replays)),
        )
    ]
    if any(caller.paid_bytes for caller in shown.callers):
        message = words.dearest(shown)
        pictures.append(
            (
                "What it costs, what it saves",
                message,
                picture(partial(price, result, machine), f"{anchor}-price", message),
            )
        )
    return Details(
        anchor,
        machine,
        words.verdict(pair) if pair else "",
        mappings,
        words.moved(mappings, shown),
        _measures(replays, pair, result),
        _stacks(replays),
        words.who(shown),
        _callers(shown),
        pictures,
    )


def _measures(replays: Sequence[Replay], pair: Comparison | None, result: Result) -> list[Row]:
    rows = []
    kinds = [_kind(replay.mapping) for replay in replays]
    machine = replays[0].machine
    few = first_level(pair, result.provenance.machine_sha256.get(machine, "")) if pair else ""
    for position, measure in enumerate(measures(replays, result.trace.instructions)):
        in_bytes = measure.unit == "bytes"
        places = words.decimals(measure.values)
        texts = [words.size(v) if in_bytes else words.number(v, places) for v in measure.values]
        moved = ""
        if pair:
            ends = pair.measures[position].values
            moved = words.difference(*ends) if in_bytes else words.relative(*ends)
        unit = "" if in_bytes else measure.unit
        below = f"{unit}; {few}" if few and measure.name == "L1 DTLB misses" else unit
        rows.append(Row(measure.name, below, bars(measure.values, texts, kinds), moved))
    return rows


def _stacks(replays: Sequence[Replay]) -> list[tuple[str, list[Stack]]]:
    kinds = (
        ("walk references found in", "references", [replay.walk_refs_in for replay in replays]),
        (
            "walk cycles by the table that was read",
            "cycles",
            [replay.walk_cycles_by_level for replay in replays],
        ),
    )
    return [
        (heading, [_stack(*one, unit) for one in zip(replays, parts, strict=True)])
        for heading, unit, parts in kinds
        if any(sum(each.values()) for each in parts)
    ]


def _stack(replay: Replay, parts: dict[str, int], unit: str) -> Stack:
    total = sum(parts.values())
    deepest = max(len(parts) - 1, 1)
    said = words.shares(list(parts.values()))
    return Stack(
        replay.mapping,
        f"{words.millions(total)} {unit}" if total else f"no {unit}",
        [
            (name, text, round(100 * count / total, 3) if total else 0.0, 28 + 72 * depth // deepest)
            for depth, ((name, count), text) in enumerate(zip(parts.items(), said, strict=True))
        ],
    )


def _callers(pair: Comparison) -> list[Row]:
    cut = CALLERS if len(pair.callers) > CALLERS + 1 else len(pair.callers)
    shown = list(pair.callers[:cut])
    if pair.callers[cut:]:
        shown.append(together(pair.callers[cut:]))
    sides = 1 if pair.alone else 2
    rates = [pair.rates(caller.walk_cycles)[:sides] for caller in shown]
    places = words.decimals(rate for ends in rates[:cut] for rate in ends)
    kinds = [_kind(pair.before.mapping), _kind(pair.after.mapping)][:sides]
    longest = max((rate for ends in rates for rate in ends), default=0.0) or 1.0
    rows = []
    for caller, ends in zip(shown, rates, strict=True):
        cells = [
            Cell(words.number(rate, places), round(100 * rate / longest, 2), kind)
            for rate, kind in zip(ends, kinds, strict=True)
        ]
        moved = "" if pair.alone else words.relative(*caller.walk_cycles)
        paid = words.difference(*caller.waste_bytes) if caller.paid_bytes else ""
        rows.append(Row(caller.name, _about(caller), cells, moved, paid))
    return rows


def _about(caller: Caller) -> str:
    """Where a caller's memory is: regions, size, leaf."""
    leaves = " to ".join(dict.fromkeys(leaf for leaf in caller.leaves if leaf))
    said = [f"{caller.regions} regions" if caller.regions > 1 else "", leaves]
    if caller.size_bytes:
        said.insert(1, words.size(caller.size_bytes))
    return ", ".join(part for part in said if part)


def _kind(mapping: str) -> str:
    return mapping if mapping in ("base", "pmd") else "other"


def _time_alt(pair: Comparison, replays: Sequence[Replay]) -> str:
    """The time series in words: its message, and mean and highest window of each mapping."""
    said = [words.when(pair)]
    for replay in replays:
        series, width = replay.windows.walk_cycles, replay.windows.accesses_per_window
        if series and width:
            rates = [per_1000(cycles, width) for cycles in (sum(series) // len(series), max(series))]
            mean, most = (words.number(rate, words.decimals(rates)) for rate in rates)
            said.append(f"{replay.mapping}: {mean} walk cycles per 1000 records on average, {most} at most")
    return ". ".join(said) + "."


def _facts(result: Result) -> list[tuple[str, str]]:
    """Where a result comes from."""
    made, trace = result.provenance, result.trace
    cpus = f"{trace.cpus} CPUs" if trace.cpus > 1 else "1 CPU"
    return [
        (name, value)
        for name, value in (
            ("trace", trace.name),
            ("accesses", f"{trace.accesses:,} of {trace.records:,} records, {cpus}"),
            ("touched", f"{trace.distinct_base_pages:,} base pages"),
            ("trace SHA-256", made.trace_sha256),
            ("traced kernel", made.kernel),
            ("data caches", ", ".join(sorted({replay.cache_mode for replay in result.replays}))),
            ("pagewalk", made.pagewalk),
            ("made by", made.command),
            ("with", ", ".join(f"{name} {found}" for name, found in made.environment.items())),
        )
        if value
    ]
