"""Which part of a trace is wanted, as options of the command line say it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pagewalk.errors import BadInput

if TYPE_CHECKING:
    from pagewalk.trace.trace import Trace

OPTIONS = (
    click.option("--records", metavar="A:B", help="Only records A up to B (exclusive), counted from 0."),
    click.option(
        "--range",
        "ranges",
        multiple=True,
        metavar="START-END",
        help="Only addresses from START up to END (exclusive), hexadecimal. May be repeated.",
    ),
    click.option(
        "--region",
        "regions",
        multiple=True,
        metavar="NAME",
        help="Only what trace info lists under this name, as an address or a caller. May be repeated.",
    ),
    click.option("--kinds", metavar="KIND,...", help="Only these kinds of access: load, store, fetch."),
    click.option(
        "--cpu",
        "cpus",
        multiple=True,
        type=click.IntRange(0, 255),
        metavar="N",
        help="Only records of this CPU. May be repeated.",
    ),
)


def cutting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options by which a trace is cut."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def part(
    trace: Trace,
    records: str | None,
    ranges: tuple[str, ...],
    regions: tuple[str, ...],
    kinds: str | None,
    cpus: tuple[int, ...],
    progress: Callable[[int], None] | None = None,
) -> tuple[Trace, str]:
    """Cut a trace as the options say.

    Returns
    -------
    Trace
        The same one where no option was given.
    str
        What it is of the whole, in words; "" where it is the whole.
    """
    from pagewalk.trace.cut import KINDS, Wanted, cut, told

    first, end = _records(records, trace.accesses)
    wanted = Wanted(
        tuple(map(_range, ranges)),
        _pages(trace, regions) if regions else None,
        frozenset(KINDS) if kinds is None else _kinds(kinds),
        frozenset(cpus) if cpus else None,
    )
    said = ", ".join([*([f"records {records}"] if records else []), *regions, told(wanted)])
    narrow = bool(ranges or regions or cpus or kinds is not None)
    if not narrow and records is None:
        return trace, ""
    return cut(trace, first, end, wanted if narrow else None, progress), said.strip(", ")


def _records(text: str | None, accesses: int) -> tuple[int, int]:
    bounds = re.fullmatch(r"(\d{0,18}):(\d{0,18})", ":" if text is None else text, re.ASCII)
    if bounds is None:
        raise BadInput("--records", f"{text!r} is no range", "write A:B, as 0:1000000")
    return int(bounds[1] or 0), int(bounds[2] or accesses)


def _range(text: str) -> tuple[int, int]:
    bounds = re.fullmatch(r"(?:0[xX])?([0-9a-fA-F]{1,17})-(?:0[xX])?([0-9a-fA-F]{1,17})", text)
    if bounds is None:
        raise BadInput(
            "--range",
            f"{text[:60]!r} is no range",
            "write START-END, as 0xffffc90000000000-0xffffc90000200000",
        )
    start, end = int(bounds[1], 16), int(bounds[2], 16)
    if not start < end <= 1 << 64:
        raise BadInput("--range", f"{text!r} is empty or leaves 64 bits", "END must lie above START")
    return start, end


def _kinds(text: str) -> frozenset[str]:
    from pagewalk.trace.cut import KINDS

    kinds = frozenset(text.split(","))
    if not kinds <= set(KINDS):
        raise BadInput("--kinds", f"{text[:60]!r} names no kind of access", "write some of load,store,fetch")
    return kinds


def _pages(trace: Trace, wanted: tuple[str, ...]) -> Any:
    """Which distinct pages lie in regions of these names."""
    import numpy as np

    from pagewalk.linux.layout import read_layout
    from pagewalk.linux.regions import named

    folder = trace.origin
    layout = read_layout(folder) if folder is not None and folder.is_dir() else None
    page = (trace.pages << np.uint64(trace.page_shift) >> np.uint64(12)).astype(np.int64)
    names, callers = named(layout, page)
    for name in wanted:
        if not name or name not in {*names, *callers}:
            known = ", ".join(sorted({*names, *callers} - {""}))
            raise BadInput(trace.origin or trace.name, f"has no region {name[:60]!r}", f"it has {known}")
    return np.isin(names.astype(str), wanted) | np.isin(callers.astype(str), wanted)
