"""--json: where an answer goes as JSON."""

import sys
from pathlib import Path

import click
import msgspec

from pagewalk.errors import BadInput
from pagewalk.files import ready, write_whole


def _place(_: click.Context, __: click.Parameter, file: str | None) -> str | None:
    """See, before long work, that it can be written."""
    if file == "":
        raise BadInput("--json", "names no file", "name one, or - for standard output")
    if file not in (None, "-"):
        ready(Path(file))
    return file


json_option = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    callback=_place,
    help="Write it as JSON; - is standard output.",
)


def printed(encoded: bytes, json_file: str | None) -> bool:
    """Write an answer to where --json says, if anywhere.

    Returns
    -------
    bool
        Whether that is standard output, where nothing else may be printed.
    """
    if json_file == "-":
        sys.stdout.buffer.write(encoded)
    elif json_file:
        write_whole(Path(json_file), encoded)
    return json_file == "-"


def as_json(answer: object) -> bytes:
    """An answer as indented JSON, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(answer), indent=1) + b"\n"
