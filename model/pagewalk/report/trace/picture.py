"""A trace as one picture: addresses over time, how hot its pages are, and how far back its accesses reach."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.layout import Layout
from pagewalk.linux.regions import named
from pagewalk.report import style, words
from pagewalk.trace.density import COLUMNS, Density
from pagewalk.trace.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = 4.6
"""Height of the address axis, about."""
LEAST = 0.3
"""Inches of a band at least: its name and its addresses are two lines."""
COMMON = 0.99
"""The title says how far back this share of the data accesses reaches."""
SHADES = ("#dbe8f5", "#7fb0dc", "#1f5f9e", "#0a2747")
"""One hue, light to dark: its order survives colour-vision deficiencies and grey print."""


def figure(trace: Trace, layout: Layout | None, seen: Density) -> Figure:
    """Draw a trace.

    Parameters
    ----------
    trace : Trace
    layout : Layout, optional
        Of the traced kernel: it names the regions.
    seen : Density
        Of the trace.
    """
    per_row = INCHES / max(sum(band.rows for band in seen.bands), 1)
    heights = [max(LEAST, band.rows * per_row) for band in seen.bands]
    heat = np.divide(seen.count.sum(axis=1), np.maximum(seen.pages, 1))
    with style.drawing():
        told = f"{trace.name}: {words.millions(trace.accesses)} records, {len(trace.pages):,} pages"
        drawn = style.canvas(message(seen, 1 << trace.page_shift), told, sum(heights) + 3.2)
        halves = drawn.add_gridspec(2, 1, height_ratios=[sum(heights) + 0.5, 2.2])
        grid = halves[0].subgridspec(
            len(heights), 2, height_ratios=heights[::-1], width_ratios=[5, 1], hspace=0.06
        )
        for number, band in enumerate(seen.bands):
            place = len(heights) - 1 - number
            left, right = drawn.add_subplot(grid[place, 0]), drawn.add_subplot(grid[place, 1])
            rows = slice(band.first_row, band.first_row + band.rows)
            _over_time(left, seen.count[rows], int(seen.count.max()), trace.accesses)
            _heat(right, heat[rows], heat)
            _name(left, _names(trace, layout, seen, number), band.start, band.end)
            for axes in (left, right):
                axes.set_yticks([])
                axes.tick_params(length=0, labelbottom=number == 0, labelcolor=style.QUIET)
                axes.spines["left"].set_visible(False)
            if number == 0:
                each = f"colour: records in each {trace.accesses / COLUMNS:,.0f}, 1 to {seen.count.max():,}"
                left.set_xlabel(f"records in order, from the first to the last ({each})", size=8)
                right.set_xlabel("records a page", size=8)
        _distances(drawn.add_subplot(halves[1]), seen.depths)
    return drawn


def message(seen: Density, page_bytes: int) -> str:
    """How far back data accesses reach."""
    data, new = int(seen.depths.sum()), int(seen.depths[-1])
    if not data:
        return "Instruction fetches only"
    first = f"{words.number(100 * new / data, 2)} % touch a page for the first time"
    reach = int(np.searchsorted(np.cumsum(seen.depths[:-1]), COMMON * data)) + 1
    if reach == len(seen.depths):
        return f"Of the data accesses, {first}"
    last = f"one of the last {reach:,} pages" if reach > 1 else "the page of the one before"
    return f"{100 * COMMON:.0f} % of data accesses go to {last} ({words.size(reach * page_bytes)}); {first}"


def _names(trace: Trace, layout: Layout | None, seen: Density, band: int) -> str:
    """The two regions in a band that have most records."""
    mine = seen.band_of_page == band
    page = (trace.pages[mine] << np.uint64(trace.page_shift) >> np.uint64(12)).astype(np.int64)
    (name, caller), records = named(layout, page), seen.records[mine]
    name = np.where((name == "user") & (caller != ""), caller, name)
    most = sorted(set(name), key=lambda each: -int(records[name == each].sum()))
    return ", ".join(most[:2]) + (", ..." if len(most) > 2 else "")


def _name(axes: Axes, name: str, start: int, end: int) -> None:
    where = f"{start:#x} + {words.size(end - start)}"
    for text, size, colour, lift, side in (
        (name, 8, style.INK, 1, "bottom"),
        (where, 6.5, style.QUIET, 0, "top"),
    ):
        axes.annotate(
            text,
            (0, 0.5),
            (-5, lift),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va=side,
            size=size,
            color=colour,
        )


def _over_time(axes: Axes, count: NDArray[np.int64], most: int, records: int) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    shown = np.ma.masked_equal(count, 0)
    colours = LinearSegmentedColormap.from_list("records", SHADES)
    extent = (0, records, 0, len(count))
    scale = LogNorm(1, max(most, 2))
    axes.imshow(
        shown, cmap=colours, norm=scale, origin="lower", aspect="auto", extent=extent, interpolation="none"
    )
    axes.set_xlim(0, records)
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))


def _heat(axes: Axes, heat: NDArray[np.float64], all_heat: NDArray[np.float64]) -> None:
    low = min(float(all_heat[all_heat > 0].min(initial=1)), 1) / 2
    axes.set_xscale("log")
    axes.set_xlim(low, max(float(all_heat.max(initial=1)), 1) * 2)
    axes.set_xticks([each for each in (1, 1e3, 1e6, 1e9) if each <= all_heat.max(initial=1)])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    rows = np.arange(len(heat) + 1)
    axes.stairs(
        np.maximum(heat, low), rows, orientation="horizontal", fill=True, baseline=low, color=SHADES[2]
    )
    axes.set_ylim(0, len(heat))


def _distances(axes: Axes, depths: NDArray[np.int64]) -> None:
    """Shares of data accesses by the number of other pages accessed in between; bins double."""
    data = max(int(depths.sum()), 1)
    edges = [0, 1]
    while edges[-1] < len(depths) - 1:
        edges.append(2 * edges[-1])
    back = [int(depths[low : min(high, len(depths) - 1)].sum()) for low, high in pairwise(edges)]
    shares = 100 * np.array([*back, int(depths[-1])]) / data
    least = min(float(shares[shares > 0].min(initial=100)), 1) / 3
    place = np.arange(len(shares))
    colours = [SHADES[2]] * len(back) + [style.QUIET]
    axes.bar(place, np.maximum(shares - least, 0), 0.86, bottom=least, color=colours)
    for at, share in zip(place, shares.tolist(), strict=True):
        if share:
            axes.annotate(
                _percent(share), (at, share), (0, 2), textcoords="offset points", ha="center", size=6.5
            )
    axes.set_yscale("log")
    axes.set_ylim(least, 300)
    axes.set_yticks([])
    axes.minorticks_off()
    labels = [f"{low:,}" if low < 10_000 else f"{low >> 10:,}K" for low in edges[:-1]]
    axes.set_xticks(place, [*labels, "first\ntime"])
    axes.tick_params(length=0, labelcolor=style.QUIET)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(
        "other pages accessed since the last access to the same page: this many, up to the next label", size=8
    )
    axes.set_title("data accesses by how far back they reach (% of them, logarithmic)", size=9, loc="left")


def _percent(share: float) -> str:
    return f"{share:.0f}" if share >= 9.95 else f"{share:.1f}" if share >= 0.095 else f"{share:.1g}"


def _short(count: float) -> str:
    """2500000 as 2.5 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return f"{count:g}"
