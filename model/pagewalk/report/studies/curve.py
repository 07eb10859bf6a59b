"""Miss-ratio curves as a terminal table and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pagewalk.report import style, words
from pagewalk.study.curve import Curve
from pagewalk.study.sampling.sets import SampledCurve, SampledCurves

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table

SHOWN = (1, 16, 32, 64, 96, 128, 256, 512, 1024, 1536, 2048, 3072, 4096)
"""Sizes of the table: those of real first and second levels, and powers of two between them."""

SHOWN_WAYS, FEWEST_SETS = (1, 2, 4, 6, 8, 12, 16), 16
"""Ways and sets of the table of second levels."""

LABELS_APART = 1.3
"""Second levels nearer than this ratio share a label: on a phone, labels would lie on each other."""


def show(trace: str, curves: Sequence[Curve], console: Console | None = None) -> None:
    """Print the misses of a fully associative LRU TLB of each of the sizes that processors have."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(highlight=False)
    console.print(Text(f"{trace}: {curves[0].accesses:,} data accesses, fully associative LRU", style="dim"))
    table = Table(box=None, pad_edge=False)
    table.add_column("entries", justify="right")
    for curve in curves:
        table.add_column(f"{curve.mapping}, misses per 1000", justify="right")
    rates = {size: [1000 * curve.at(size) / curve.accesses for curve in curves] for size in SHOWN}
    places = words.decimals(rate for row in rates.values() for rate in row)
    for size, row in rates.items():
        table.add_row(f"{size:,}", *(words.number(rate, places) for rate in row))
    table.add_row("any", *(words.number(1000 * c.units / c.accesses, places) for c in curves))
    console.print(table)
    for curve in curves:
        console.print(_second_levels(curve))
    console.print(f"{_message(curves)}.")


def show_sampled(found: SampledCurves, console: Console | None = None) -> None:
    """Print the misses of second levels that a sample of sets says, and how far each may be off."""
    from rich.console import Console

    console = console or Console(highlight=False)
    for curve in found.curves:
        console.print(_second_levels(curve, np.array(curve.error)))
    first = found.curves[0]
    console.print(
        f"{found.trace}: {first.classes} of 64 classes of sets, in {first.accesses:,} data accesses; after ± "
        "two standard errors, and what classes unlike the sampled ones may hide."
    )


def _second_levels(curve: Curve | SampledCurve, error: NDArray[np.int64] | None = None) -> Table:
    """The misses of set-associative second levels of sizes that processors have."""
    from rich.table import Table

    rates = 1000 * np.array(curve.second_level_misses) / curve.accesses
    off = None if error is None else 1000 * error / curve.accesses
    few = SHOWN_WAYS if error is None else SHOWN_WAYS[2::2]
    shown = [curve.ways.index(ways) for ways in few if ways in curve.ways]
    rows = [row for row, sets in enumerate(curve.sets) if sets >= FEWEST_SETS]
    places = words.decimals(rates[np.ix_(rows, shown)].ravel().tolist())
    table = Table(box=None, pad_edge=False, title_justify="left", title_style="dim")
    table.title = f"{curve.mapping}: misses per 1000, second level behind an L1 of {curve.l1}"
    table.add_column("sets", justify="right")
    for way in shown:
        table.add_column(f"{curve.ways[way]} ways", justify="right")

    def cell(row: int, way: int) -> str:
        rate = words.number(rates[row, way], places)
        return rate if off is None else f"{rate} ± {words.number(off[row, way], places)}"

    for row in rows:
        table.add_row(f"{curve.sets[row]:,}", *(cell(row, way) for way in shown))
    return table


def figure(trace: str, curves: Sequence[Curve], processors: Mapping[str, int]) -> Figure:
    """Misses against entries, a line for each mapping; where real second levels stand.

    Parameters
    ----------
    trace : str
    curves : sequence of Curve
    processors : mapping of str to int
        Name -> entries of its second level for base pages.
    """
    largest = max(max(processors.values(), default=1), *(curve.entries[-1] for curve in curves))
    largest = 1 << int(np.ceil(np.log2(largest))) + 1
    with style.drawing():
        drawn = style.canvas(
            _message(curves), f"{trace}, {curves[0].accesses:,} data accesses; exact LRU", 4.4
        )
        axes = drawn.subplots()
        for curve in curves:
            sizes = np.array([1, *curve.entries, largest])
            rates = 1000 * np.array([curve.at(int(size)) for size in sizes]) / curve.accesses
            colour = style.hue(curve.mapping)
            axes.step(sizes, rates, where="post", color=colour, linewidth=1.8)
            knee = curve.knee()
            at = 1000 * curve.at(knee) / curve.accesses
            axes.plot([knee], [at], "o", color=colour, markersize=5)
            axes.annotate(_knee(curve), (knee, at), (4, 6), textcoords="offset points", color=colour, size=8)
            axes.annotate(
                curve.mapping,
                (largest, rates[-1]),
                (5, 0),
                textcoords="offset points",
                color=colour,
                va="center",
            )
        for sizes_beside in _beside(sorted(set(processors.values()))):
            names = [name for name, size in processors.items() if size in sizes_beside]
            said = names[0] if len(names) == 1 else f"{len(names)} processors"
            for entries in sizes_beside:
                axes.axvline(entries, color=style.RULE, linewidth=0.8, zorder=0)
            axes.annotate(
                f"{_from_to(sizes_beside)}  {said}",
                (sizes_beside[-1], 1.0),
                (3, -3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=90,
                size=7,
                color=style.QUIET,
                va="top",
                ha="left",
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlim(1, largest)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,.10g}")
        axes.set_xlabel(
            "entries of the TLB (dots: within a tenth of\n"
            "the misses that no size avoids, and what they reach)"
        )
        axes.set_ylabel("misses per 1000 accesses")
        axes.grid(axis="y", color=style.RULE, linewidth=0.6)
        axes.tick_params(length=0, labelcolor=style.QUIET)
        axes.spines[["left", "bottom"]].set_visible(False)
    return drawn


def _beside(sizes: Sequence[int]) -> list[list[int]]:
    """Ascending sizes, those together whose labels would lie on each other."""
    groups: list[list[int]] = []
    for size in sizes:
        if groups and size < LABELS_APART * groups[-1][0]:
            groups[-1].append(size)
        else:
            groups.append([size])
    return groups


def _from_to(sizes: Sequence[int]) -> str:
    return f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"


def _message(curves: Sequence[Curve]) -> str:
    said = [f"{_entries(curve.knee())} with {words.mapping(curve.mapping)}" for curve in curves]
    does = "avoids" if len(curves) == 1 and curves[0].knee() == 1 else "avoid"
    return f"{' or '.join(said)} {does} nearly every miss that a TLB can avoid"


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _knee(curve: Curve) -> str:
    reach = f" ({words.size(curve.knee() * curve.leaf_bytes)})" if curve.leaf_bytes else ""
    return f"{curve.knee():,}{reach}"
