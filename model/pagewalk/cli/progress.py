"""What is said on standard error while work goes on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COUNTED = 1e4
"""Of something a second, above which it is records, whose rate tells; cases and machines are fewer."""


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Callable[[int], None] | None]:
    """Give a function that takes the work done since its last call; None where nobody looks.

    Shows rate, share done and time left; `total` is None where nobody knows it.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(doing, total=total, rate="")

        def advance(amount: int) -> None:
            bars.update(task, advance=amount)
            speed = bars.tasks[0].speed
            bars.update(task, rate=f"{speed / 1e6:.1f} M/s" if speed and speed > COUNTED else "")

        yield advance


def say_if_compiling() -> None:
    """Say so when kernels are going to be compiled."""
    from pagewalk.kernels import _jit

    if not _jit.WARM:
        print("compiling kernels (once)", file=sys.stderr)
