"""Names with what they are, in two columns as wide as the terminal."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

import click

NARROWEST = 30
"""Columns that the words take at least."""

UNCUT = 1 << 16
"""Columns where there is no terminal: what reads a pipe wants lines."""


def listing(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and words; what is too long for the terminal goes on below itself."""
    left = max(len(name) for name, _ in rows) + 2
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNCUT
    width = max(columns, left + NARROWEST)
    for name, words in rows:
        lines = textwrap.wrap(words, width - left, break_long_words=False, break_on_hyphens=False)
        for place, line in enumerate(lines):
            click.echo(f"{name if place == 0 else '':{left}}{line}")
