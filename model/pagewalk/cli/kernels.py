"""kernels."""

import click
import msgspec

from pagewalk.cli.answer import json_option, printed
from pagewalk.linux.rules.releases import BOUNDARIES, release


@click.command()
@click.argument("name", metavar="RELEASE", required=False)
@json_option
def kernels(name: str | None, json_file: str | None) -> None:
    """List what each kernel release changed, or show every rule of RELEASE (6.12, v8) with its source."""
    from pagewalk.report.catalogue.kernels import facts, show, show_list

    chosen = [release(name)] if name else [release(boundary) for boundary in BOUNDARIES]
    if json_file:
        content = {"schema": "pagewalk.kernels/1", "kernels": [facts(one) for one in chosen]}
        encoded = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        if printed(encoded, json_file):
            return
    if name:
        show(chosen[0])
    else:
        show_list()
