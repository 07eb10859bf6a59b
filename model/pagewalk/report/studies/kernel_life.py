"""What happened to the memory of modelled kernels: a table for the terminal, a figure along the events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pagewalk.replay.result import KernelLife, Result
from pagewalk.report import style, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

WRONG = ("left_read_only", "left_absent")
"""Counts of frames that went back to the allocator while the direct map had them read-only or not at all."""

COLUMNS = (
    ("leaves\nsplit", ("split",)),
    ("merged", ("merge",)),
    ("full\nflushes", ("flush-all",)),
    ("ranged\nflushes", ("flush-range",)),
    ("attr.\ncalls", ("attribute_calls",)),
    ("failures", ("failure",)),
    ("huge\nfallbacks", ("huge_fallbacks",)),
    ("freed\nwrong", WRONG),
)
"""Columns of the table after the first two, each the sum of counts; one that is 0 everywhere is left out."""


def label(life: KernelLife, lives: Sequence[KernelLife]) -> str:
    """A kernel's name, with its architecture where kernels of several are shown."""
    several = len({other.arch for other in lives}) > 1
    return f"{life.name}, {life.arch}" if several else life.name


def growth_kb(life: KernelLife) -> int:
    """By how much the memory that the direct map maps with base pages has grown, in kB."""
    smallest = next(iter(life.direct_map_kb.values()))
    return smallest[-1] - smallest[0]


def show_life(result: Result, console: Console | None = None) -> None:
    """Print what happened to each kernel's memory; nothing where nothing did."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    lives = result.kernels
    console = console or Console()
    shown = [(name, keys) for name, keys in COLUMNS if any(total(life, *keys) for life in lives)]
    flushed = flush_cycles(result)
    if not shown and not any(map(growth_kb, lives)):
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("kernel", overflow="fold", min_width=8)
    costs = ["flush\ncycles"] if any(flushed) else []
    for name in ["direct map\nin base\npages", *(name for name, _ in shown), *costs]:
        table.add_column(name, justify="right", no_wrap=True)
    for life, cycles in zip(lives, flushed, strict=True):
        cells = [words.difference(0, growth_kb(life) << 10)]
        cells += [f"{total(life, *keys):,}" for _, keys in shown]
        table.add_row(label(life, lives), *cells, *([f"{cycles:,}"] if costs else []))
    needed = Measurement.get(console, console.options.update(max_width=1000), table).minimum
    console.width = max(console.width, needed)
    console.print()
    console.print(Text(f"{message(lives)}.", style="bold"))
    console.print()
    console.print(table, highlight=False)
    failed: dict[str, list[str]] = {}
    for life in lives:
        for why, times in life.failures.items():
            failed.setdefault(f"{why}, {times:,} times", []).append(label(life, lives))
    for what, names in failed.items():
        console.print(Text(f"- {', '.join(names)}: {what}", style="dim"))


def total(life: KernelLife, *keys: str) -> int:
    """Counts over the whole life, added up."""
    return sum(life.counts[key][-1] for key in keys)


def flush_cycles(result: Result) -> list[int]:
    """What the flushes of each kernel cost the machine; 0 where there are several."""
    machines = {replay.machine for replay in result.replays}
    cycles = {replay.mapping: replay.cycles.get("flush", 0) for replay in result.replays}
    return [cycles.get(life.name, 0) if len(machines) == 1 else 0 for life in result.kernels]


MESSAGES = (
    (WRONG, "free", "frees", "1 frame with a wrong direct map", "{:,} frames with a wrong direct map"),
    (("huge_fallbacks",), "fall back to base pages", "falls back to base pages", "once", "{:,} times"),
    (("split",), "split", "splits", "1 leaf", "{:,} leaves"),
    (("flush-all",), "flush the whole TLB", "flushes the whole TLB", "once", "{:,} times"),
)
"""What a title speaks of: counts that are added up; the verb of many and of one; what, of one and of many."""


def message(lives: Sequence[KernelLife]) -> str:
    """What stands out, in a sentence that is right whichever way it goes."""
    said = []
    for keys, many, one, once, often in MESSAGES:
        counts = [total(life, *keys) for life in lives]
        most, least = max(counts), min(counts)
        if most == 0:
            continue
        what = once if most == 1 else often.format(most)
        if most == least:
            said.append(f"{'every kernel' if len(lives) > 1 else label(lives[0], lives)} {one} {what}")
            continue
        who, others = (
            [label(life, lives) for life, count in zip(lives, counts, strict=True) if count == extreme]
            for extreme in (most, least)
        )
        doing = f"{words.several(who)} {many if len(who) > 1 else one} {what}"
        said.append(f"{doing}, {words.several(others)} {f'{least:,}' if least else 'none'}")
    return "; ".join(said) or "no leaf is split, and the whole TLB is never flushed"


def along_events(result: Result) -> Figure:
    """The direct map by base pages, full flushes and failures, after each event."""
    lives = result.kernels
    smallest = [next(iter(life.direct_map_kb.values())) for life in lives]
    every: list[tuple[str, list[list[float]]]] = [
        ("direct map\nin base pages, MiB", [[kb / 1024 for kb in samples] for samples in smallest]),
        ("full flushes\nso far", [[*life.counts["flush-all"]] for life in lives]),
        ("failures\nso far", [[*life.counts["failure"]] for life in lives]),
    ]
    moving = [panel for panel in every if any(max(series) > min(series) for series in panel[1])]
    panels = moving or every[:1]
    about = f"{result.trace.name}; modelled by pagewalk {result.provenance.pagewalk}"
    with style.drawing():
        figure = style.canvas(message(lives), about, 0.4 + 1.7 * len(panels))
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, series) in zip(rows, panels, strict=True):
            _lines(axes, lives, series)
            axes.set_ylabel(name)
            axes.set_xlim(0, len(lives[0].events))
        axes.set_xlabel("events since the kernel began to boot")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def _lines(axes: Axes, lives: Sequence[KernelLife], series: Sequence[Sequence[float]]) -> None:
    """A line for each different course; kernels that share one share its name at the right end."""
    from matplotlib.ticker import MaxNLocator

    shared: dict[tuple[float, ...], list[KernelLife]] = {}
    for life, values in zip(lives, series, strict=True):
        shared.setdefault(tuple(values), []).append(life)
    top = max(max(values) for values in series) or 1
    lowest = -1.0
    colours = style.hues([life.name for life in lives])
    for values, group in sorted(shared.items(), key=lambda item: item[0][-1]):
        names = ", ".join(label(life, lives) for life in group)
        colour = colours[group[0].name]
        axes.step(range(len(values) + 1), [*values, values[-1]], where="post", color=colour, linewidth=1.6)
        height = max(values[-1] / (1.05 * top), lowest)
        lowest = height + 0.13
        axes.text(1.008, height, words.shorten(names, 30), transform=axes.transAxes, color=colour,
                  va="center", size=8)  # fmt: skip
    axes.set_ylim(0, 1.05 * top)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.10g}")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(axis="y", color=style.RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=style.QUIET)


def save_life(result: Result, folder: Path) -> list[Path]:
    """Write the figure as ``life.png`` and ``life.svg``; nothing where nothing happened."""
    if not any(growth_kb(life) or total(life, "flush-all", "failure") for life in result.kernels):
        return []
    return [style.save(lambda: along_events(result), folder / f"life.{kind}") for kind in ("png", "svg")]
