"""Validation as a table for the terminal and as figures: measured, predicted, error, verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pagewalk.report.style import INK, QUIET, bare, canvas, hue
from pagewalk.study.validation.sensitivity import SAMPLES, Band, Bands
from pagewalk.study.validation.validate import Outcome, Row, Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console, RenderableType

MOVERS = 4
"""Figures shown for each band."""

DETAILED_ROWS = 6
"""Values of a case up to which each is shown; more are summed up, unless the case was asked for by name."""


def show(validation: Validation, every_row: bool = False, console: Console | None = None) -> None:
    """Print the cases with their errors and verdicts, and what they add up to.

    Parameters
    ----------
    validation : Validation
    every_row : bool
        Show every value of every case.
    console : rich.console.Console, optional
        Where to print; it decides width and colours.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    groups = (
        ("Validation: nothing was set by these", [c for c in validation.cases if c.validates]),
        ("Used to set parameters: these validate nothing", [c for c in validation.cases if c.sets]),
    )
    for title, cases in groups:
        if cases:
            console.print(Text(title, style="bold underline"))
            for case in cases:
                for line in _lines(case, every_row):
                    console.print(line)
    missing = [case for case in validation.cases if case.verdict == "not predicted"]
    if missing:
        console.print(Text("Not predicted", style="bold underline"))
        for case in missing:
            console.print(Text.assemble((case.name, "bold"), f"  {case.title}\n  {case.why}"))
        console.print()
    console.print(Text(summary(validation), style="bold"))


def summary(validation: Validation) -> str:
    """What the cases that validate add up to, in a sentence."""
    cases = [case for case in validation.cases if case.validates]
    if not cases:
        return "No case here validates anything."
    rows = [row for case in cases for row in case.rows]
    knees = [row for row in rows if row.quantity.endswith(("_knee", "_reach"))]
    text = (
        f"{sum(case.verdict == 'inside' for case in cases)} of {len(cases)} validating cases inside their "
        f"bands; {sum(row.inside for row in rows)} of {len(rows)} values"
    )
    if knees:
        exact = sum(row.low <= row.measured <= row.high and row.inside for row in knees)
        text += f"; {exact} of {len(knees)} knees where they were measured"
    return text + "."


def show_bands(found: Bands, console: Console | None = None) -> None:
    """Print each prediction with its band, and the figures that move it most."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("case, quantity, what moves it most", overflow="fold")
    for name in ("measured", "predicted", "band"):
        table.add_column(name, justify="right", no_wrap=True)
    for band in found.bands:
        table.add_row(
            Text.assemble((band.case, "bold"), f"\n{label(band)}"),
            number(band.measured),
            number(band.predicted),
            f"{number(band.low)} to {number(band.high)}",
        )
        for m in band.movers[:MOVERS]:
            ends = f"{number(m.at_least)} to {number(m.at_greatest)}"
            table.add_row(Text(f"  {m.name} {m.least} to {m.greatest}", style="dim"), "", "", ends)
    console = console or Console()
    console.print(table)
    console.print(f"Bands: {SAMPLES} machines, all assumed figures varied together within limits of ours.")


def _lines(case: Outcome, every_row: bool) -> Iterable[RenderableType]:
    """A case: its verdict and what it is; each value, or the errors of all."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    style = "green" if case.verdict == "inside" else "red"
    yield Text.assemble(
        (case.name, "bold"), "  ", (f"{case.verdict}: {case.inside} of {len(case.rows)} values", style)
    )
    yield Padding(Text(case.title), (0, 0, 0, 2))
    if case.sets:
        yield Padding(Text(f"set {', '.join(case.sets)}", style="dim"), (0, 0, 0, 2))
    if not every_row and len(case.rows) > DETAILED_ROWS:
        said = f"half within {case.median_error:.1%}, the worst off by {case.worst_error:.0%}"
        yield Padding(Text(said), (0, 0, 1, 2))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("", overflow="fold", min_width=14)
    for name in ("measured", "predicted", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold", min_width=7)
    for row in case.rows:
        table.add_row(label(row), *_cells(row))
    yield Padding(table, (0, 0, 1, 2))


def _cells(row: Row) -> tuple[str, str, str, str]:
    spread = f" ±{row.sampling_error:.2g}" if row.sampling_error else ""
    error = f"{row.error:+.1%}" if row.measured else f"{row.error:+.3g}"
    verdict = "inside" if row.inside else f"not {number(row.low)} to {number(row.high)}"
    return number(row.measured), number(row.predicted) + spread, error, verdict


def number(value: float) -> str:
    """Whole numbers as they are, others with four digits; from ten million on in powers of ten."""
    if abs(value) >= 1e7:
        return f"{value:.3e}".replace("e+", "e")
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 10_000 else f"{value:.4g}"


def label(row: Row | Band) -> str:
    """What was measured, and where."""
    text = row.quantity.replace("_", " ")
    if isinstance(row, Row) and row.per == "run":
        text += " of the run"
    if row.at:
        text += ", " + ", ".join(f"{key} {value}" for key, value in row.at.items())
    for sign, other in (("/", row.over), ("-", row.less)):
        if other:
            text += f" {sign} with " + ", ".join(f"{key} {value or 'none'}" for key, value in other.items())
    return text


def curves(case: Outcome) -> Figure | None:
    """Measured and predicted curves of a case, one panel for each sweep; None where it has no sweep."""
    sweeps = _sweeps(case)
    if not sweeps:
        return None
    columns = min(len(sweeps), 4)
    lines = -(-len(sweeps) // columns)
    set_by = f" It set {', '.join(case.sets)}." if case.sets else ""
    figure = canvas(
        f"{case.title}: half of the predictions are within {case.median_error:.1%}, "
        f"the worst is off by {case.worst_error:.0%}",
        f"Dots: measured ({case.source}). Lines: the model, {case.machine}.{set_by}",
        2.6 * lines,
    )
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, (title, along, rows) in zip(panels, sweeps, strict=False):
        places = [row.at[along] for row in rows]
        axes.plot(places, [row.predicted for row in rows], color=hue("pmd"), linewidth=1.4)
        axes.plot(places, [row.measured for row in rows], "o", color=hue("base"), markersize=3)
        in_log(axes, places, [value for row in case.rows for value in (row.measured, row.predicted)])
        axes.set_title(title, size=9, color=INK)
        axes.set_xlabel(along, color=QUIET)
    for axes in panels[len(sweeps) :]:
        axes.set_visible(False)
    panels[0].set_ylabel(rows[0].quantity.replace("_", " ") + " an access")
    return figure


def in_log(axes: Axes, across: Sequence[float], up: Sequence[float]) -> None:
    """Logarithmic axes over some values, with a few round numbers written as people write them."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    steps = [4**power for power in range(12)]
    axes.set_xticks([s for s in steps if min(across) <= s <= max(across)])
    axes.set_yticks([s for s in _ROUND if 0.9 * min(up) <= s <= 1.1 * max(up)])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: short(value))
        axis.set_minor_locator(NullLocator())


_ROUND = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def short(value: float) -> str:
    """A whole number in a few characters: 64, 1k, 256k."""
    return f"{value / 1024:g}k" if value >= 1024 and value % 1024 == 0 else f"{value:g}"


def _sweeps(case: Outcome) -> list[tuple[str, str, list[Row]]]:
    """Title, the key that varies, and the rows of each sweep of at least three values along a number."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in case.rows:
        along = next((k for k in ("pages", "chains") if isinstance(row.at.get(k), int)), None)
        if along and not row.over and not row.less:
            rest = tuple((k, v) for k, v in row.at.items() if k != along)
            found.setdefault((row.quantity, along, rest), []).append(row)
    return [
        (", ".join(f"{key} {value}" for key, value in rest), along, rows)
        for (_, along, rest), rows in found.items()
        if len(rows) >= 3
    ]


def errors(validation: Validation) -> Figure:
    """The error of every value of every case that validates, a line for each case."""
    cases = [case for case in validation.cases if case.validates]
    inside = sum(case.verdict == "inside" for case in cases)
    figure = canvas(
        f"{inside} of {len(cases)} results that set nothing are predicted within their bands",
        "Error of each predicted value against the measured one, cut at ±100 %. Hollow: outside its band.",
        0.21 * len(cases) + 0.6,
    )
    axes = figure.subplots()
    for place, case in enumerate(cases):
        for row in case.rows:
            fill = hue("pmd") if row.inside else "none"
            axes.plot(
                100 * max(-1.0, min(row.error, 1.0)),
                place,
                "o",
                markersize=4,
                markerfacecolor=fill,
                markeredgecolor=hue("pmd") if row.inside else hue("base"),
                markeredgewidth=0.8,
            )
    axes.set_yticks(range(len(cases)), [case.name for case in cases])
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.set_xlim(-105, 105)
    axes.set_xlabel("error, %")
    bare(axes)
    return figure
