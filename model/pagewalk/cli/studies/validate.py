"""validate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pagewalk.cli.answer import as_json, json_option, printed
from pagewalk.cli.listing import listing
from pagewalk.cli.progress import progress, say_if_compiling
from pagewalk.cli.usage import examples
from pagewalk.errors import BadInput

if TYPE_CHECKING:
    from pagewalk.study.validation.case import Case


@click.command(
    epilog=examples(
        "pagewalk validate",
        "pagewalk validate gups-cascade-lake-4k mine.case.toml",
        "pagewalk validate --bands knees-zen3",
    )
)
@click.argument("cases", nargs=-1, metavar="[CASE.toml]...")
@click.option("--list", "list_", is_flag=True, help="List the cases that come with pagewalk.")
@click.option(
    "--bands", is_flag=True, help="How far assumed figures move the predictions of the named cases."
)
@json_option
def validate(cases: tuple[str, ...], list_: bool, bands: bool, json_file: str | None) -> None:
    """Set measured results beside the model's predictions: the packaged cases, or the named ones.

    A CASE is the name of a packaged case or a TOML file (docs/cases.md).
    """
    from pagewalk.study.validation.read import packaged, read

    if list_:
        listing([(name, read(name).title) for name in packaged()])
        return
    if bands and not cases:
        raise BadInput("--bands", "takes some seconds to minutes a case", "name the cases")
    chosen = [read(name) for name in cases or packaged()]
    say_if_compiling()
    if bands:
        _bands(chosen, json_file)
        return
    from pagewalk.study.validation.validate import encode, values
    from pagewalk.study.validation.validate import validate as run

    with progress("predicting", sum(map(values, chosen))) as advance:
        found = run(chosen, advance)
    if printed(encode(found), json_file):
        return
    from pagewalk.report.studies.validation import show

    show(found, every_row=bool(cases))


def _bands(cases: list[Case], json_file: str | None) -> None:
    from pagewalk.report.studies.validation import show_bands
    from pagewalk.study.validation.sensitivity import Bands, bands, tried

    with progress("varying assumed figures", sum(map(tried, cases))) as advance:
        found = Bands(bands=[band for case in cases for band in bands(case, advance)])
    if printed(as_json(found), json_file):
        return
    show_bands(found)
