"""kernels."""

import click

from pagewalk.cli.answer import as_json, json_option, printed
from pagewalk.cli.usage import examples
from pagewalk.linux.rules.releases import BOUNDARIES, release


@click.command(epilog=examples("pagewalk kernels", "pagewalk kernels 6.12"))
@click.argument("name", metavar="[RELEASE]", required=False)
@json_option
def kernels(name: str | None, json_file: str | None) -> None:
    """List what each kernel release changed, or show every rule of RELEASE (6.12, v8) with its source."""
    from pagewalk.report.catalogue.kernels import facts, show, show_list

    chosen = [release(name)] if name else [release(boundary) for boundary in BOUNDARIES]
    if json_file:
        content = {"schema": "pagewalk.kernels/1", "kernels": [facts(one) for one in chosen]}
        if printed(as_json(content), json_file):
            return
    if name:
        show(chosen[0])
    else:
        show_list()
