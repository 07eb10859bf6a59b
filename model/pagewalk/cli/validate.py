"""validate."""

import sys
from pathlib import Path

import click

from pagewalk.cli.progress import progress
from pagewalk.files import write_whole


@click.command()
@click.argument("cases", nargs=-1, metavar="[CASE.toml]...")
@click.option("--list", "list_", is_flag=True, help="List the cases that come with pagewalk.")
@click.option("--json", "json_file", metavar="FILE", help="Write as JSON; - is standard output.")
def validate(cases: tuple[str, ...], list_: bool, json_file: str | None) -> None:
    """Set measured results beside the model's predictions: the packaged cases, or the named ones.

    A CASE is the name of a packaged case or a TOML file (docs/cases.md).
    """
    from pagewalk.study.validation.read import packaged, read

    if list_:
        for name in packaged():
            click.echo(f"{name:34} {read(name).title}")
        return
    chosen = [read(name) for name in cases or packaged()]
    from pagewalk.study.validation.validate import encode
    from pagewalk.study.validation.validate import validate as run

    with progress("predicting", len(chosen)) as advance:
        found = run(chosen, advance)
    if json_file == "-":
        sys.stdout.buffer.write(encode(found))
        return
    if json_file:
        write_whole(Path(json_file), encode(found))
    from pagewalk.report.validation import show

    show(found, every_row=bool(cases))
