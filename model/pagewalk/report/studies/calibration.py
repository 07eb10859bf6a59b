"""A calibration as a table for the terminal and a figure: what was measured, and the model fitted to it."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from pagewalk.report.studies.validation import in_log
from pagewalk.report.style import INK, QUIET, canvas, hue
from pagewalk.report.words import number
from pagewalk.study.calibration.calibrate import Calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

QUIET_SPREAD = 0.1
"""Spread of the passes from which a chase counts as disturbed. Ours."""


def show(found: Calibration, console: Console | None = None) -> None:
    """Print what was measured, what could not be, and how the result does on chases that no fit used."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    kind = "in a guest" if found.here.guest else "no hypervisor seen"
    of = "the preset of this processor" if found.here.exact else "the nearest preset"
    console.print(Text(f"{found.here.processor}, {kind}; the rest is from {found.here.preset}, {of}"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("figure")
    for name in ("measured", "from", "to"):
        table.add_column(name, justify="right")
    table.add_column("by")
    for name, value in found.values.items():
        numbers = (f"{one:,.4g}" if abs(one) < 1e6 else f"{one:.2e}" for one in value[:3])
        table.add_row(name, *numbers, value.how)
    console.print(table)
    for name, why in found.missing.items():
        console.print(Text(f"not measured: {name}: {why}"))
    console.print(Text(disturbed(found)))
    console.print(Text(f"{verdict(found)}.", style="bold"))


def disturbed(found: Calibration) -> str:
    """How quiet the machine was."""
    spreads = [point.spread for points in found.points.values() for point in points]
    noisy = sum(spread > QUIET_SPREAD for spread in spreads)
    return (
        f"Noise: the middle pass of a chase took {_percent(median(spreads))} longer than its best (median of "
        f"{len(spreads)} chases); {noisy} were disturbed by more than {_percent(QUIET_SPREAD)}. "
        f"The hypervisor gave {_percent(found.stolen)} of the time to others."
    )


def verdict(found: Calibration) -> str:
    """How the calibrated machine does on the chases that no fit used."""
    sizes = [abs(error) for error in found.errors]
    return (
        f"Chases that no fit used: half are predicted within {_percent(median(sizes))}, "
        f"the worst is off by {_percent(max(sizes))} ({len(sizes)} chases)"
    )


def _percent(share: float) -> str:
    return f"{number(100 * share, 1)} %"


def figure(found: Calibration) -> Figure:
    """Measured times and the fitted model, stride by stride; and the held-out chases against prediction."""
    first, second = found.tlb.first, found.tlb.second
    shared = ", shared with what walks remember" * second.shared
    drawn = canvas(
        verdict(found),
        f"{found.here.processor}. Dots: measured. Lines: {first.entries} L1 entries, {second.sets} sets "
        f"of {second.ways} in the second level ({second.set_index}, {second.policy}{shared}), "
        "and the data read.",
        5.2,
    )
    strides = sorted({point.pattern.stride for point in found.points["tlb"]})
    panels = drawn.subplots(2, -(-(len(strides) + 1) // 2)).ravel()
    fitted = found.data + found.tlb.explained
    for axes, stride in zip(panels, strides, strict=False):
        rows = [
            (p, line)
            for p, line in zip(found.points["tlb"], fitted, strict=True)
            if p.pattern.stride == stride
        ]
        pages = [point.pattern.pages for point, _ in rows]
        axes.plot(pages, [line for _, line in rows], color=hue("pmd"), linewidth=1.4)
        axes.plot(pages, [point.cycles for point, _ in rows], "o", color=hue("base"), markersize=3)
        in_log(axes, pages, [value for point, line in rows for value in (point.cycles, line)])
        axes.set_title(f"stride {stride >> 10}K", size=9, color=INK)
        axes.set_xlabel("pages", color=QUIET)
        axes.set_ylabel("cycles an access", color=QUIET)
    last, *empty = panels[len(strides) :]
    measured = [point.cycles for point, _ in found.held_out]
    for place, (leaf, colour) in enumerate((("4K", hue("base")), ("2M", hue("pmd")))):
        those = [(point.cycles, value) for point, value in found.held_out if point.pattern.leaf == leaf]
        last.plot([x for x, _ in those], [y for _, y in those], "o", color=colour, markersize=4)
        last.text(
            0.04, 0.96 - 0.09 * place, f"{leaf} pages", color=colour, va="top", transform=last.transAxes
        )
    last.plot([min(measured), max(measured)], [min(measured), max(measured)], color=QUIET, linewidth=0.8)
    in_log(last, measured, measured)
    last.set_title("not used by the fit", size=9, color=INK)
    last.set_xlabel("measured cycles", color=QUIET)
    last.set_ylabel("predicted", color=QUIET)
    for axes in empty:
        axes.set_visible(False)
    return drawn
