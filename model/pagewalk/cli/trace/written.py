"""What a command says that wrote a trace."""

from pathlib import Path
from shlex import quote

import click


def written(out: Path) -> None:
    """Say what was written, and what to do next."""
    size = sum(file.stat().st_size for file in out.iterdir())
    click.echo(f"{out}: {size:,} bytes\nNext: pagewalk trace info {quote(str(out))}", err=True)
