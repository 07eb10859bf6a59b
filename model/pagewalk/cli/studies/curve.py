"""curve: misses for every TLB size at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pagewalk.cli.answer import json_option, printed
from pagewalk.cli.progress import progress, say_if_compiling
from pagewalk.cli.usage import MACHINE, examples, mappings_option, plot_option
from pagewalk.errors import BadInput

if TYPE_CHECKING:
    from pagewalk.hardware.machine import Machine
    from pagewalk.study.replays import Subject


@click.command(
    epilog=examples(
        "pagewalk curve sample:gitdiff --plot curve.svg",
        "pagewalk curve sample:gitdiff -m amd-zen3-milan --sample 0.1",
    )
)
@click.argument("trace")
@mappings_option
@click.option(
    "--machine",
    "-m",
    default="textbook-setassoc",
    show_default=True,
    metavar="NAME|FILE.toml",
    help=f"{MACHINE} Its L1 stands before the set-associative second levels.",
)
@plot_option("Draw the curves.")
@json_option
@click.option("--sample", type=float, metavar="SHARE", help="Of the sets: second levels only, with an error.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the sample.")
def curve(
    trace: str,
    mappings: tuple[str, ...],
    machine: str,
    plot: Path | None,
    json_file: str | None,
    sample: float | None,
    seed: int,
) -> None:
    """Count the misses of TRACE for every LRU TLB at once.

    Fully associative of any size, and all of 1 to 1024 sets by 1 to 32 ways behind an L1. One pass, exact;
    with --sample second levels of 64 sets and more from some of their sets, with how far each may be off.
    """
    import msgspec

    from pagewalk.hardware.load import load, names
    from pagewalk.study.curve import curves
    from pagewalk.study.replays import subject

    described, opened = load(machine), subject(trace)
    wanted = mappings or ("base", "pmd")
    if sample is not None:
        if plot is not None:
            raise BadInput("--plot", "a sample has no fully associative sizes to draw", "leave out --sample")
        _sampled(opened, wanted, described, sample, seed, json_file)
        return
    say_if_compiling()
    with progress("measuring", opened.trace.accesses) as advance:
        measured = curves(opened, wanted, described, advance)
    found, encoded = measured.curves, msgspec.json.encode(measured) + b"\n"
    if plot is not None:
        from pagewalk.report.studies.curve import figure
        from pagewalk.report.style import save

        processors = {name: load(name) for name in names() if not name.startswith(("textbook", "virtuoso"))}
        sizes = {
            name: sum(
                a.entries for a in p.tlb if a.level == 2 and "load" in a.serves and _holds_base(a.holds)
            )
            for name, p in processors.items()
            if p.geometry == described.geometry and p.guest is None
        }
        save(lambda: figure(opened.trace.name, found, sizes), plot)
    if printed(encoded, json_file):
        return
    from pagewalk.report.studies.curve import show

    show(opened.trace.name, found)


def _sampled(
    opened: Subject, mappings: Sequence[str], machine: Machine, share: float, seed: int, json_file: str | None
) -> None:
    import msgspec

    from pagewalk.report.studies.curve import show_sampled
    from pagewalk.study.sampling.sets import sampled_curves

    with progress("sampling", opened.trace.accesses) as advance:
        found = sampled_curves(opened, mappings, machine, share, seed, advance)
    encoded = msgspec.json.encode(found) + b"\n"
    if printed(encoded, json_file):
        return
    show_sampled(found)


def _holds_base(holds: list[str]) -> bool:
    return not holds or "4K" in holds
