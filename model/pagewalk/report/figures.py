"""A result as figures. Each function returns a new matplotlib Figure; `save_all` writes them all.

A title is the message of its figure, worked out from the data, so it is right whichever way the data go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pagewalk.errors import BadInput
from pagewalk.replay.result import Replay, Result, Windows
from pagewalk.report import style, words
from pagewalk.study.compare import (
    Caller,
    Comparison,
    by_machine,
    compare,
    comparisons,
    measures,
    per_1000,
    together,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CALLERS, LEAST = 14, 0.01
"""Callers drawn at most, and their least share of the largest one; the rest are added up."""

_OVER_LINES = {"facecolor": "white", "edgecolor": "none", "pad": 1}

_SCALES = ((10**9, "billions of "), (10**6, "millions of "), (10**3, "thousands of "), (1, ""))

_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (0, "bytes"))

_SHOWN = ("L1 DTLB misses", "page walks", "walk references", "walk cycles", "exposed cycles")


def misses(result: Result) -> Figure:
    """Misses, walks, references and walk cycles for 1000 accesses, a bar for each machine and mapping."""
    machines = by_machine(result)
    several = len(machines) > 1
    rows: list[tuple[str, Replay | None]] = []
    for machine, replays in machines.items():
        rows += [(machine, None)] if several else []
        rows += [(replay.mapping, replay) for replay in replays]
    replays = [replay for _, replay in rows if replay is not None]
    shown = [m for m in measures(replays) if m.name in _SHOWN and m.unit == "per 1000 accesses"]
    shown.sort(key=lambda measure: _SHOWN.index(measure.name))
    with style.drawing():
        figure = style.canvas(words.answer(result), _about(result), 0.5 + 0.27 * len(rows))
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        places = [place for place, (_, replay) in enumerate(rows) if replay is not None]
        hues = style.hues([replay.mapping for replay in replays])
        for axes, measure in zip(panels, shown, strict=True):
            decimals = words.decimals(measure.values)
            colours = [hues[replay.mapping] for replay in replays]
            bars = axes.barh(places, measure.values, height=0.78, color=colours)
            labels = [words.number(value, decimals) for value in measure.values]
            axes.bar_label(bars, labels, padding=3, size=8.5)
            axes.set_title(f"{measure.name}\nper 1000 accesses", size=9, loc="left", color=style.QUIET)
            axes.set_xlim(0, 1.32 * max(measure.values) or 1)
            axes.set_xticks([])
            style.bare(axes)
        panels[0].set_yticks(range(len(rows)), [name for name, _ in rows])
        for label, (_, replay) in zip(panels[0].get_yticklabels(), rows, strict=True):
            label.set(
                color=hues[replay.mapping] if replay else style.INK,
                weight="normal" if replay is None and several else "bold",
            )
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def by_caller(result: Result, machine: str) -> Figure:
    """Walk cycles of each caller's regions, one bar for each mapping, the costliest first."""
    pair = _pair(result, machine)
    largest = max((max(caller.walk_cycles) for caller in pair.callers), default=0)
    seen = sum(max(caller.walk_cycles) >= LEAST * largest for caller in pair.callers)
    cut = min(CALLERS, seen) if len(pair.callers) > min(CALLERS, seen) + 1 else len(pair.callers)
    shown, rest = pair.callers[:cut], pair.callers[cut:]
    rows = [*shown, *([together(rest)] if rest else [])]
    rates = [pair.rates(caller.walk_cycles) for caller in rows]
    most = max((max(ends) for ends in rates[:cut]), default=0.0)
    decimals = words.decimals(rate for ends in rates for rate in ends)
    sides = (pair.before,) if pair.alone else (pair.before, pair.after)
    thick = 0.8 / len(sides)
    hues = style.hues([replay.mapping for replay in by_machine(result)[machine]])
    with style.drawing():
        height = 0.6 + (0.1 + 0.15 * len(sides)) * max(len(rows), 1)
        figure = style.canvas(words.who(pair), _about(result, machine), height)
        axes = figure.subplots()
        for side, replay in enumerate(sides):
            for row, ends in enumerate(rates):
                place = row + (side - (len(sides) - 1) / 2) * thick
                is_rest = row == cut
                length = 0.0 if is_rest else ends[side]
                axes.barh(place, length, height=0.94 * thick, color=hues[replay.mapping])
                name = f"  {replay.mapping}" if row == 0 else ""
                axes.annotate(words.number(ends[side], decimals) + name, (length, place), (3, 0),
                              textcoords="offset points", va="center", size=8)  # fmt: skip
        for row, caller in enumerate(rows):
            axes.text(1.0, row, _consequence(caller, pair), transform=axes.get_yaxis_transform(),
                      size=8, color=style.QUIET, ha="right", va="center")  # fmt: skip
        axes.set_yticks(
            range(len(rows)), [words.shorten(caller.name, 44) + _extent(caller) for caller in rows]
        )
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlim(0, 1.35 * most or 1)
        axes.set_xticks([])
        axes.set_xlabel("walk cycles per 1000 accesses of the whole trace", loc="left")
        style.bare(axes)
    return figure


def over_time(result: Result, machine: str) -> Figure:
    """STLB misses and walk cycles along the trace, so that its phases show."""
    replays = by_machine(result)[machine]
    records = max(1, result.trace.records or result.trace.accesses)
    scale, unit = next((n, word) for n, word in _SCALES if records >= n)
    panels = (("stlb_misses", "STLB misses"), ("walk_cycles", "walk cycles"))
    with style.drawing():
        figure = style.canvas(words.when(_pair(result, machine)), _about(result, machine), 4.2)
        for axes, (key, name) in zip(figure.subplots(2, 1, sharex=True), panels, strict=True):
            ends = []
            courses = _courses(replays, key)
            colours = style.hues([group[0].mapping for group in courses])
            for layer, group in enumerate(courses):
                edges, values = _rates_over_time(group[0].windows, key, records, scale)
                colour, width = colours[group[0].mapping], 2.6 if layer == 0 < len(courses) - 1 else 1.3
                axes.stairs(values, edges, baseline=None, color=colour, linewidth=width)
                names = words.several([replay.mapping for replay in group])
                ends.append((values[-1] if values else 0.0, names, max(values, default=0.0), colour))
            axes.set_ylim(0, 1.05 * max(top for _, _, top, _ in ends) or 1)
            axes.set_xlim(0, records / scale)
            axes.set_ylabel(f"{name}\nper 1000 records")
            axes.yaxis.set_major_formatter("{x:,.10g}")
            axes.spines[["left", "bottom"]].set_visible(False)
            axes.grid(axis="y", color=style.RULE, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(length=0, labelcolor=style.QUIET)
            axes.tick_params(axis="x", pad=6)
            _label_ends(axes, [(value, names, colour) for value, names, _, colour in ends])
        axes.xaxis.set_major_formatter("{x:,.10g}")
        axes.set_xlabel(f"{unit}records since the start of the trace")
    return figure


def anatomy(result: Result, machine: str) -> Figure:
    """Where walk references were found, and which table's entries the walk cycles were spent on."""
    replays = by_machine(result)[machine]
    panels: list[tuple[str, Callable[[Replay], dict[str, int]], str]] = [
        ("walk references found in", lambda replay: replay.walk_refs_in, "references"),
        ("walk cycles by table", lambda replay: replay.walk_cycles_by_level, "cycles"),
    ]
    with style.drawing():
        title = words.where(replays)
        figure = style.canvas(title, _about(result, machine), 1.1 + 1.05 * len(replays))
        for axes, (name, parts_of, unit) in zip(figure.subplots(2, 1), panels, strict=True):
            for row, replay in enumerate(replays):
                _stack(axes, row, replay, parts_of(replay), unit)
            axes.set_title(name, size=9, loc="left", color=style.QUIET)
            axes.set_yticks(range(len(replays)), [replay.mapping for replay in replays])
            for label, replay in zip(axes.get_yticklabels(), replays, strict=True):
                label.set(color=style.hue(replay.mapping), weight="bold")
            axes.set_ylim(len(replays) - 0.35, -0.65)
            axes.set_xlim(0, 1.26)
            axes.set_xticks([])
            axes.spines[["left", "bottom"]].set_visible(False)
            axes.tick_params(length=0)
    return figure


def price(result: Result, machine: str) -> Figure:
    """Memory that each caller pays against walk cycles that it saves; cheap and good is up and left."""
    pair = _pair(result, machine)
    shown = [caller for caller in pair.callers if caller.paid_bytes or caller.saved_cycles]
    largest = max((abs(caller.paid_bytes) for caller in shown), default=0)
    unit, name = next((u, n) for u, n in _BYTES if largest >= u)
    dots = []
    for caller in shown:
        before, after = pair.rates(caller.walk_cycles)
        dots.append((caller.paid_bytes / unit, before - after, caller.name))
    highest = max((abs(saved) for _, saved, _ in dots), default=0.0) or 1.0
    with style.drawing():
        figure = style.canvas(words.dearest(pair), _about(result, machine), 3.4)
        axes = figure.subplots()
        axes.axhline(0, color=style.RULE, linewidth=0.8)
        axes.axvline(0, color=style.RULE, linewidth=0.8)
        for paid, saved, _ in dots:
            axes.plot(paid, saved, "o", color=style.hue(pair.after.mapping), markersize=7, alpha=0.85)
        labelled: list[tuple[float, float]] = []
        for paid, saved, caller_name in sorted(dots, key=lambda dot: -abs(dot[1]) / highest - abs(dot[0])):
            place = paid * unit / (largest or 1), saved / highest
            if all(abs(place[0] - x) > 0.25 or abs(place[1] - y) > 0.07 for x, y in labelled):
                labelled.append(place)
                right = place[0] > 0.6
                axes.annotate(words.shorten(caller_name, 30), (paid, saved), (-8 if right else 8, 0),
                              textcoords="offset points", va="center", ha="right" if right else "left",
                              size=8)  # fmt: skip
        axes.yaxis.set_major_formatter("{x:,.10g}")
        axes.set_xlabel(f"memory that rounding adds, {name}")
        axes.set_ylabel("walk cycles saved\nper 1000 accesses")
        axes.margins(0.08, 0.14)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0, labelcolor=style.QUIET)
        axes.grid(color=style.RULE, linewidth=0.4)
        axes.set_axisbelow(True)
    return figure


def machines(result: Result) -> Figure:
    """Walk cycles, and all waiting, under two mappings on every machine; the costliest machine first."""
    pairs = sorted(comparisons(result), key=lambda pair: -max(pair.walk_rates))
    with style.drawing():
        figure = style.canvas(words.verdict_of_all(pairs), _about(result), 0.8 + 0.3 * len(pairs))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, key in zip(panels, ("walk", "exposed"), strict=True):
            counts = [(pair.before.cycles.get(key, 0), pair.after.cycles.get(key, 0)) for pair in pairs]
            ends = [pair.rates(both) for pair, both in zip(pairs, counts, strict=True)]
            _dumbbells(axes, pairs, ends)
            axes.set_title(f"{key} cycles per 1000 accesses", size=9, loc="left", color=style.QUIET)
        panels[0].set_yticks(range(len(pairs)), [words.shorten(pair.after.machine, 30) for pair in pairs])
        panels[0].set_ylim(len(pairs) - 0.5, -1.0)
    return figure


def _dumbbells(axes: Axes, pairs: Sequence[Comparison], rates: Sequence[tuple[float, float]]) -> None:
    """A row for each pair: a dot for each mapping, a line between them, the change at the right."""
    most = max(max(ends) for ends in rates)
    decimals = words.decimals(rate for ends in rates for rate in ends)
    style.bare(axes)
    for row, (pair, ends) in enumerate(zip(pairs, rates, strict=True)):
        axes.plot(ends, (row, row), color=style.RULE, linewidth=3, zorder=1, solid_capstyle="butt")
        for replay, rate, other in ((pair.before, *ends), (pair.after, *ends[::-1])):
            on_left = rate < other or (rate == other and replay is pair.after)
            side, colour = "right" if on_left else "left", style.hue(replay.mapping)
            axes.plot(rate, row, "o", color=colour, markersize=7, zorder=4)
            axes.annotate(words.number(rate, decimals), (rate, row), (-8 if on_left else 8, 0),
                          textcoords="offset points", ha=side, va="center", zorder=4, size=8,
                          color=colour, bbox=_OVER_LINES)  # fmt: skip
            if row == 0:
                axes.annotate(replay.mapping, (rate, row), (-2 if on_left else 2, 8), size=8, ha=side,
                              textcoords="offset points", color=colour, weight="bold", zorder=4,
                              bbox=_OVER_LINES)  # fmt: skip
        axes.text(1.0, row, words.relative(*ends), transform=axes.get_yaxis_transform(),
                  size=8.5, ha="right", va="center")  # fmt: skip
    near_zero = min(map(min, rates)) < 0.2 * most
    axes.set_xlim(-0.2 * most if near_zero else 0.0, 1.45 * most or 1)
    axes.set_xticks([])


def _pair(result: Result, machine: str) -> Comparison:
    alone = by_machine(result)[machine][0]
    return next(
        (pair for pair in comparisons(result) if pair.after.machine == machine), compare(alone, alone)
    )


def _about(result: Result, machine: str = "") -> str:
    names = [machine] if machine else list(by_machine(result))
    where = f"on {names[0]}" if len(names) == 1 else f"on {len(names)} machines"
    return f"{words.heading(result.trace)}, {where}; modelled by pagewalk {result.provenance.pagewalk}"


def _extent(caller: Caller) -> str:
    return f"  {words.size(caller.size_bytes)}" if caller.size_bytes else ""


def _consequence(caller: Caller, pair: Comparison) -> str:
    if pair.alone:
        return ""
    waste = f"\n{words.difference(*caller.waste_bytes)} waste" if caller.paid_bytes else ""
    return words.relative(*caller.walk_cycles) + waste


def _courses(replays: Sequence[Replay], key: str) -> list[list[Replay]]:
    """Replays that go the same course all along the trace, together: they share a line and its name."""
    groups: dict[tuple[int, ...], list[Replay]] = {}
    for replay in replays:
        groups.setdefault(tuple(getattr(replay.windows, key)), []).append(replay)
    return list(groups.values())


def _rates_over_time(windows: Windows, key: str, records: int, scale: int) -> tuple[list[float], list[float]]:
    """Edges of the windows, in `scale` records, and the rate in each; the last may be a short one."""
    width, counts = windows.accesses_per_window, getattr(windows, key)
    edges = [min(width * i, records) for i in range(len(counts) + 1)]
    rates = [per_1000(n, edges[i + 1] - edges[i]) for i, n in enumerate(counts)]
    return [edge / scale for edge in edges], rates


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name each curve at its right end, moving names apart that would lie on each other."""
    top, lowest = axes.get_ylim()[1], 0.0
    for value, name, colour in sorted(ends):
        height = max(value / top, lowest)
        lowest = height + 0.11
        axes.text(1.008, height, words.shorten(name, 24), transform=axes.transAxes, color=colour,
                  weight="bold", va="center")  # fmt: skip


def _stack(axes: Axes, row: int, replay: Replay, parts: dict[str, int], unit: str) -> None:
    """One bar of shares, light to dark; parts too small for a name are named behind it."""
    total, left, small = sum(parts.values()), 0.0, []
    for (name, count), colour in zip(parts.items(), style.shades(replay.mapping, len(parts)), strict=True):
        share = count / total if total else 0.0
        axes.barh(row, share, left=left, height=0.8, color=colour, edgecolor="white", linewidth=0.8)
        label = f"{name}  {words.shares([count, total - count])[0]}"
        if share > 0.012 * len(label):
            axes.text(
                left + share / 2, row, label, ha="center", va="center", size=8, color=style.ink_on(colour)
            )
        elif count:
            small.append(label)
        left += share
    said = f"{words.millions(total)} {unit}" if total else f"no {unit}"
    axes.text(left + 0.01, row, "\n".join([said, *([", ".join(small)] if small else [])]),
              size=8, va="center", color=style.QUIET)  # fmt: skip


def save_all(result: Result, folder: Path) -> list[Path]:
    """Write every figure of `result` as PNG and SVG.

    Parameters
    ----------
    result : Result
    folder : Path
        Made where it is missing. A file of the same name is replaced, whole or not at all.

    Returns
    -------
    list of Path
        The files: ``misses``, ``callers``, ``time``, ``anatomy``, where a caller pays memory ``price`` (with
        ``-MACHINE`` where there are several machines) and then ``machines``, each ``.png`` and ``.svg``. Same
        results give the same bytes.

    Raises
    ------
    BadInput
        The folder cannot be written, or the result holds nothing to draw.
    """
    if not all("walks" in replay.counts for replay in result.replays) or not result.replays:
        raise BadInput(result.trace.name, "a result without counts of walks", "make it with pagewalk replay")
    names = list(by_machine(result))
    drawn: list[tuple[str, Callable[[], Figure]]] = [("misses", partial(misses, result))]
    for machine in names:
        tail = "" if len(names) == 1 else f"-{re.sub(r'[^A-Za-z0-9._-]+', '_', machine)}"
        drawn += [
            (f"callers{tail}", partial(by_caller, result, machine)),
            (f"time{tail}", partial(over_time, result, machine)),
            (f"anatomy{tail}", partial(anatomy, result, machine)),
        ]
        if any(caller.paid_bytes for caller in _pair(result, machine).callers):
            drawn.append((f"price{tail}", partial(price, result, machine)))
    if len(comparisons(result)) > 1:
        drawn.append(("machines", partial(machines, result)))
    return [style.save(draw, folder / f"{name}.{kind}") for name, draw in drawn for kind in ("png", "svg")]
