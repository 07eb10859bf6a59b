"""What the help of several commands says alike: machines, mappings, pictures, pages, examples."""

from collections.abc import Callable
from pathlib import Path

import click

from pagewalk.errors import BadInput

MACHINE = "Processor: a name that pagewalk machines lists, or a machine file."
MAPPING = "Leaves of the areas: base (4 KiB), pmd (2 MiB), recorded, contpte (arm64)."

machines_option = click.option(
    "--machine", "-m", "machines", multiple=True, metavar="NAME|FILE.toml", help=f"{MACHINE} May be repeated."
)
mappings_option = click.option(
    "--mapping",
    "mappings",
    multiple=True,
    metavar="base|pmd|recorded|contpte",
    help=f"{MAPPING} May be repeated.",
)


def examples(*lines: str) -> str:
    """Commands to type, one a line, as the end of a command's help."""
    return block("Examples:", *lines)


def block(title: str, *lines: str) -> str:
    """Lines under a title, as they are, for a command's help."""
    return "\n  ".join((f"\b\n{title}", *lines))


def named_so(*suffixes: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Check that a file to write is named as what will be in it."""

    def check(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
        if file is not None and file.suffix not in suffixes:
            raise BadInput(file, f"is no {' or '.join(suffixes)} file", "name it so")
        return file

    return check


def plot_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command --plot, which draws `what`."""
    return click.option(
        "--plot",
        type=click.Path(path_type=Path),
        metavar="FILE.svg|png",
        callback=named_so(".svg", ".png"),
        help=what,
    )


def page_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command --out for its page."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="FILE.html",
        callback=named_so(".html", ".htm"),
        help=what,
    )
