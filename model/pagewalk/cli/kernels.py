"""kernels."""

import sys
from pathlib import Path

import click
import msgspec

from pagewalk.files import write_whole
from pagewalk.linux.rules.releases import BOUNDARIES, release


@click.command()
@click.argument("name", metavar="RELEASE", required=False)
@click.option("--json", "json_file", metavar="FILE", help="Write as JSON; - is standard output.")
def kernels(name: str | None, json_file: str | None) -> None:
    """List what each kernel release changed, or show every rule of RELEASE (6.12, v8) with its source."""
    from pagewalk.report.catalogue.kernels import facts, show, show_list

    chosen = [release(name)] if name else [release(boundary) for boundary in BOUNDARIES]
    if json_file:
        content = {"schema": "pagewalk.kernels/1", "kernels": [facts(one) for one in chosen]}
        encoded = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        if json_file == "-":
            sys.stdout.buffer.write(encoded)
            return
        write_whole(Path(json_file), encoded)
    if name:
        show(chosen[0])
    else:
        show_list()
