"""machines."""

import click

from pagewalk.cli.answer import as_json, json_option, printed
from pagewalk.cli.usage import examples
from pagewalk.errors import BadInput
from pagewalk.hardware.load import NOT_MODELLED, load, names, sources


@click.command(
    epilog=examples(
        "pagewalk machines",
        "pagewalk machines amd-zen4-genoa",
        "pagewalk machines --diff amd-zen3-milan amd-zen4-genoa",
    )
)
@click.argument("name", required=False)
@click.option("--diff", nargs=2, metavar="A B", help="Figures in which two presets or files differ.")
@json_option
def machines(name: str | None, diff: tuple[str, str] | None, json_file: str | None) -> None:
    """List the processors we know, or show every figure of NAME (a preset or a TOML file) with its source."""
    if diff:
        if name or json_file:
            raise BadInput("--diff", "stands alone", "give the two machines and nothing else")
        from pagewalk.report.catalogue.machines import show_differences

        show_differences(load(diff[0]), load(diff[1]))
        return
    found = [load(name)] if name else [load(preset) for preset in names()]
    if json_file:
        content = found[0] if name else {"schema": "pagewalk.machines/1", "machines": found}
        if printed(as_json(content), json_file):
            return
    from pagewalk.report.catalogue.machines import show, show_list

    if name:
        show(found[0], sources())
    else:
        show_list(found, NOT_MODELLED)
