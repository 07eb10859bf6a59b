"""What stands beside results on a page: sweeps and miss-ratio curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from pagewalk.errors import BadInput
from pagewalk.hardware.load import load, names
from pagewalk.hardware.machine import Machine
from pagewalk.report import words
from pagewalk.report.pages.html import Cell, Picture, picture
from pagewalk.report.studies.curve import figure
from pagewalk.study.compare import change, per_1000
from pagewalk.study.curve import Curves

Rows = list[dict[str, Any]]
"""A sweep's cells, as `pagewalk.study.sweep` writes them."""

FIXED = ("cell", "trace", "machine", "mapping", "cache_mode", "error")


class Heat(NamedTuple):
    """A table of numbers, coloured by their size."""

    name: str
    message: str
    caption: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    failed: list[str]
    """Combinations that are no possible machine."""


class CurvePicture(NamedTuple):
    """A curve as shown."""

    name: str
    message: str
    shown: Picture


def heat(name: str, rows: Rows) -> Heat:
    """A sweep as a heat map: what ``pmd`` changes where it has both mappings, else walk cycles."""
    failed = [str(row["error"]) for row in rows if row.get("error")]
    rows = [row for row in rows if not row.get("error")]
    rows.sort(key=lambda row: [_order(row[key]) for key in row if key in FIXED[1:3] or "." in key])
    counted = set() if not rows else set(rows[0]) - set(FIXED)
    varied = [key for key in rows[0] if key in counted and "." in key] if rows else []
    dimensions = [
        key for key in ("trace", "machine", *varied) if len({str(row.get(key)) for row in rows}) > 1
    ]
    across = dimensions[-1] if dimensions else "machine"
    down = [key for key in dimensions if key != across]
    found: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    for row in rows:
        place = ", ".join(_said(row, key) for key in down) or "all", _said(row, across)
        found.setdefault(place, {})[row["mapping"]] = row["walk_cycles"], row["accesses"]
    columns, heads = (list(dict.fromkeys(place[side] for place in found)) for side in (1, 0))
    both = all({"base", "pmd"} <= cell.keys() for cell in found.values())
    values = {place: _values(cell, both) for place, cell in found.items()}
    largest = max((ends[0] for ends in values.values()), default=1.0) or 1.0
    cells = {place: _heat(ends, both, largest) for place, ends in values.items()}
    return Heat(
        name,
        _spread(list(values.values()), both),
        "Walk cycles per 1000 accesses, base to pmd: blue is saved, orange is added"
        if both
        else "Walk cycles per 1000 accesses: the darker, the more",
        ", ".join(down) or "",
        [f"{across} {column}" for column in columns],
        [(head, [cells.get((head, column), Cell("-")) for column in columns]) for head in heads],
        sorted(set(failed)),
    )


def _said(row: dict[str, Any], key: str) -> str:
    value = row.get(key, "")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _order(value: Any) -> tuple[float, str]:
    """Numbers by their size, then words."""
    return (float(value), "") if isinstance(value, int | float) else (float("inf"), str(value))


def _values(cell: dict[str, tuple[int, int]], both: bool) -> tuple[float, float]:
    first, last = (cell["base"], cell["pmd"]) if both else (next(iter(cell.values())),) * 2
    return per_1000(*first), per_1000(*last)


def _heat(ends: tuple[float, float], both: bool, largest: float) -> Cell:
    if both:
        return changed_cell(ends)
    return Cell(words.number(ends[0], words.decimals(ends)), round(100 * ends[0] / largest, 1), "base")


def changed_cell(ends: tuple[float, float]) -> Cell:
    """A change as a cell: blue by how much is saved, orange by how much is added."""
    moved = change(*ends)
    said = " → ".join(words.number(end, words.decimals((end,))) for end in ends)
    text = f"{words.relative(*ends)} ({said})"
    if moved == 0:
        return Cell(text)
    if moved is None:
        return Cell(text, 100.0, "base")
    return Cell(text, round(min(100 * abs(moved), 100), 1), "pmd" if moved < 0 else "base")


def moves(shares: Sequence[float]) -> str:
    """From the least to the most saved, as percent: ``0 % to -97.2 %``."""
    ends = (words.relative(1, 1 + share) if share else "0 %" for share in (max(shares), min(shares)))
    return " to ".join(dict.fromkeys(ends))


def saved(shares: Sequence[float]) -> str:
    """From the least to the most, where all save: ``40 % to 97.2 %``."""
    return moves(shares).replace("-", "")


def _spread(values: Sequence[tuple[float, float]], both: bool) -> str:
    if not values:
        return "No cell of this sweep is a possible machine"
    if not both:
        rates = [rate for rate, _ in values]
        low, high = (words.number(rate, words.decimals(rates)) for rate in (min(rates), max(rates)))
        return f"{low} to {high} walk cycles per 1000 accesses"
    moved = [share for ends in values if (share := change(*ends)) is not None]
    if not moved:
        return "PMD leaves bring walk cycles where there were none"
    if max(moved) < 0:
        return f"PMD leaves save {saved(moved)} of the walk cycles in {len(values)} cells"
    return f"With PMD leaves, walk cycles change by {moves(moved)} in {len(values)} cells"


def curve_picture(anchor: str, found: Curves, machines: Iterable[str]) -> CurvePicture:
    """Misses by size, with the second levels of the machines marked; of all presets where there are none."""
    described = [machine for name in machines if (machine := _known(name))]
    processors = {machine.id: _second_level(machine) for machine in described or map(load, names())}
    draw = partial(
        figure, found.trace, found.curves, {name: size for name, size in processors.items() if size}
    )
    said = []
    for curve in found.curves:
        rates = [words.number(per_1000(curve.at(size), curve.accesses), 2) for size in (64, 1536)]
        said.append(
            f"{curve.mapping}: {' and '.join(rates)} misses per 1000 accesses with 64 and 1,536 entries"
        )
    message = draw().texts[0].get_text().replace("\n", " ")
    return CurvePicture(found.trace, message, picture(draw, anchor, f"{message}. {'; '.join(said)}."))


def _known(name: str) -> Machine | None:
    try:
        return load(name)
    except BadInput:
        return None


def _second_level(machine: Machine) -> int:
    """Entries of the second level that hold base pages."""
    return sum(
        tlb.entries
        for tlb in machine.tlb
        if tlb.level == 2 and "load" in tlb.serves and (not tlb.holds or "4K" in tlb.holds)
    )
