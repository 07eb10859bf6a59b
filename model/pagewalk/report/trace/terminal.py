"""What a trace is, and what formats there are, in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pagewalk.report import words
from pagewalk.report.trace.information import Part, TraceInfo
from pagewalk.trace.readers import Reader

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

CALLERS = 10
"""Areas shown in the terminal; the JSON has all that were accessed."""

NARROW = 72
"""Columns below which pages of 2 MiB are left to the JSON; formats have two tables up to `FULL`."""

FULL = 80


def show(info: TraceInfo, console: Console | None = None) -> None:
    """Print to `console`, or to standard output."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False)
    console.print(Text(info.name, style="bold"), Text(f"sha256 {info.sha256[:16]}", style="dim"))
    for line in _sentences(info):
        console.print(Text(line))
    tables = (
        ("records, by kind", info.kinds),
        ("data, by address", info.ranges),
        ("data, by caller", info.areas),
        ("data, by address space", info.spaces),
    )
    for title, parts in tables:
        if parts:
            console.print()
            console.print(_table(title, parts, console.width < NARROW))
    said = ", ".join(f"{key} {info.recorder[key]}" for key in ("workload", "kernel") if key in info.recorder)
    if said:
        console.print()
        console.print(Text(f"Recorded: {said}", style="dim"))


def _sentences(info: TraceInfo) -> Iterator[str]:
    fetches = f", {words.millions(info.code.accesses)} instruction fetches" if info.code.accesses else ""
    yield (
        f"{words.millions(info.records)} records: {words.millions(info.loads)} loads, "
        f"{words.millions(info.stores)} stores{fetches}"
    )
    base = words.size(info.base_page_bytes)
    yield (
        f"data in {info.data.base_pages:,} pages of {base} "
        f"({words.size(info.data.base_pages * info.base_page_bytes)}), {info.data.pages_2m:,} of 2 MiB "
        f"({words.size(info.data.pages_2m << 21)}); {info.mean_run:.2f} accesses in a row on one page"
    )
    of_all = [f"{words.number(100 * count / max(info.records, 1), 1)} %" for count in info.records_by_cpu]
    several = f"; {info.cpus} CPUs with {', '.join(of_all)} of the records" if info.cpus > 1 else ""
    events = f"; {info.events:,} flushes and switches" if info.events else ""
    stored = sum(file.size_bytes for file in info.files)
    on_disk = (
        f"; {words.size(stored)} on disk, {8 * stored / max(info.records, 1):.2f} bits a record"
        if stored
        else ""
    )
    yield f"columns {', '.join(info.columns)}{several}{events}{on_disk}"


def _table(title: str, parts: list[Part], narrow: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column(Text(title, style="bold"), overflow="fold", max_width=27)
    headings = ["accesses", "share", "in a row", "pages", *([] if narrow else ["2M pages"])]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    for part in parts[:CALLERS]:
        share = f"{words.number(100 * part.share, 2)} %"
        large = [] if narrow else [f"{part.pages_2m:,}"]
        cells = (f"{part.mean_run:.2f}", f"{part.base_pages:,}", *large)
        table.add_row(Text(part.name), words.millions(part.accesses), share, *cells)
    if len(parts) > CALLERS:
        rest = parts[CALLERS:]
        count = words.millions(sum(part.accesses for part in rest))
        share = f"{words.number(100 * sum(part.share for part in rest), 2)} %"
        table.add_row(Text(f"{len(rest)} others", style="dim"), count, share)
    return table


def show_formats(readers: list[Reader], console: Console | None = None) -> None:
    """Print what can be read, and what each format tells, to `console` or standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = console or Console(highlight=False)
    table, writers = (
        Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False) for _ in range(2)
    )
    told = ("size", "store", "fetch", "cpu", "process", "time")
    table.add_column("format", no_wrap=True)
    for heading in told:
        table.add_column(heading, justify="center", no_wrap=True)
    beside = console.width >= FULL
    if beside:
        table.add_column("written by", overflow="fold")
    writers.add_column("format", no_wrap=True)
    writers.add_column("written by", overflow="fold")
    for reader in readers:
        marks = ("\u2022" if each in reader.carries else "" for each in told)
        table.add_row(reader.name, *marks, *([reader.about] if beside else []))
        writers.add_row(reader.name, reader.about)
    console.print(table)
    if not beside:
        console.print()
        console.print(writers)
    console.print("\nOf time, only the order is kept. Files may be compressed: gzip, xz, zstd, bzip2, zip.")
