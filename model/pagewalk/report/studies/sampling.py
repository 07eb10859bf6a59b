"""A sample's estimates as a table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagewalk.report import words
from pagewalk.study.sampling.answer import Sampled
from pagewalk.study.sampling.estimate import Estimate

if TYPE_CHECKING:
    from rich.console import Console

FIGURES = {"l1_misses": "L1 misses", "stlb_misses": "page walks"}


def show(found: Sampled, console: Console | None = None) -> None:
    """Print to `console`, or to standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(highlight=False)
    first = found.estimates[0]
    console.print(
        Text(
            f"{found.trace}: {first.parts} windows, {100 * first.share:.1f} % of "
            f"{words.millions(found.records)} records, seed {found.seed}; misses per 1000 records"
        )
    )
    for machine in dict.fromkeys(each.machine for each in found.estimates):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
        table.add_column(Text(machine, style="bold"), no_wrap=True)
        interval = f"{100 * found.confidence:.0f} % interval"
        headings = ["mapping", "estimate", interval, *(["replayed", "within"] if found.checked else [])]
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "mapping" else "right", no_wrap=True)
        for number, each in enumerate(found.estimates):
            if each.machine != machine:
                continue
            for name, title in FIGURES.items():
                estimate: Estimate = getattr(each, name)
                low, high = (_per_1000(figure, found.records) for figure in (estimate.low, estimate.high))
                cells = [_per_1000(estimate.value, found.records), f"{low} \u2013 {high}"]
                if found.checked:
                    exact = found.checked[number][name]
                    inside = estimate.low <= exact <= estimate.high
                    cells += [_per_1000(exact, found.records), "yes" if inside else "no"]
                table.add_row(title, each.mapping, *cells)
        console.print()
        console.print(table)
    console.print()
    console.print(
        Text(
            "Walk references and cycles are not estimated: which pages were walked last, no sample knows.",
            style="dim",
        )
    )


def _per_1000(count: int, records: int) -> str:
    return f"{1000 * count / records:.3g}"
