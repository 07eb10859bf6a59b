"""check: whether the model still says what it said."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pagewalk.cli.progress import progress, say_if_compiling
from pagewalk.cli.usage import examples
from pagewalk.errors import BadInput
from pagewalk.files import write_whole
from pagewalk.study import baseline
from pagewalk.study.baseline import Difference

SHOWN = 40
"""Differences printed at most."""


def _line(difference: Difference) -> str:
    ends = ["not there" if value is None else f"{value:,}" for value in difference[2:]]
    moved = ""
    if difference.old and difference.new is not None:
        moved = f"  ({100 * (difference.new / difference.old - 1):+.4g} %)"
    return f"{difference.cell}: {difference.figure} {ends[0]} -> {ends[1]}{moved}"


def _say(moved: Sequence[Difference], changed_inputs: Sequence[str]) -> None:
    for difference in moved[:SHOWN]:
        click.echo(_line(difference))
    if len(moved) > SHOWN:
        names = ", ".join(sorted({difference.figure for difference in moved[SHOWN:]}))
        click.echo(f"... and {len(moved) - SHOWN:,} more, of: {names}")
    for name in changed_inputs:
        click.echo(f"{name} is not the one that the baseline was made with")


@click.command(
    epilog=examples(
        "pagewalk check", 'pagewalk check --update --reason "arm64 walks read the contiguous entry once"'
    )
)
@click.argument("file", type=click.Path(path_type=Path), default=baseline.DEFAULT)
@click.option("--update", is_flag=True, help="Write the new figures into FILE; needs --reason.")
@click.option("--reason", help="Why the figures moved, for those who read the file later.")
def check(file: Path, update: bool, reason: str | None) -> None:
    """Work out the grid of the baseline FILE; exit with 1, naming each figure that moved, if any did.

    Figures are exact, so an optimisation passes and a change of a rule does not. Whoever means a change
    commits it with the new baseline: pagewalk check --update --reason "..."
    """
    if update != bool(reason and reason.strip()):
        raise BadInput(
            "--update", "goes with --reason", 'pagewalk check --update --reason "what moved, and why"'
        )
    old = baseline.read(file)
    opened = baseline.open_grid(old.grid)
    say_if_compiling()
    with progress("replaying", opened.records) as advance:
        cells, inputs = baseline.measure(opened, advance), opened.inputs
    moved = list(baseline.differences(old.figures, cells))
    _say(moved, [name for name in inputs if old.inputs and old.inputs.get(name) != inputs[name]])
    total = sum(map(len, cells.values()))
    count = f"{total:,} figures of {len(cells)} cells"
    if update:
        write_whole(file, baseline.encode(baseline.updated(old, cells, inputs, reason or "")))
        click.echo(f"{file}: {count}, {len(moved):,} of them moved")
    elif moved:
        click.echo(f"{len(moved):,} of {total:,} figures moved")
        click.echo('If that is meant, commit the new ones: pagewalk check --update --reason "..."')
        sys.exit(1)
    else:
        click.echo(f"{count} are those of {file}")
