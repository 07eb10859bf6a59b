"""What a trace is, for ``pagewalk trace info``: as plain data, and as a page in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pagewalk.linux.layout import Layout
from pagewalk.linux.regions import name_ranges, owners
from pagewalk.report import words
from pagewalk.trace.facts import facts
from pagewalk.trace.readers import Reader
from pagewalk.trace.store.read import column_files
from pagewalk.trace.trace import Trace

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OUTSIDE = "vmalloc space outside areas"
"""What `pagewalk.linux.regions` calls vmalloc addresses of which it knows no more."""

CALLERS = 10
"""Areas shown in the terminal; the JSON has all that were accessed."""


class Part(Struct, frozen=True, kw_only=True):
    """Data accesses to a part of the address space.

    Attributes
    ----------
    name : str
    accesses : int
    share : float
        Of all data accesses.
    base_pages, pages_2m : int
        Distinct base pages, and aligned pieces of 2 MiB, that they touch.
    """

    name: str
    accesses: int
    share: float
    base_pages: int
    pages_2m: int


class File(Struct, frozen=True, kw_only=True):
    """A file of the trace."""

    name: str
    size_bytes: int


class TraceInfo(Struct, frozen=True, kw_only=True):
    """What ``pagewalk trace info`` says.

    Attributes
    ----------
    data : Part
        All data accesses.
    code : Part
        All instruction fetches; share is of all records.
    mean_run : float
        Consecutive data accesses on one base page.
    ranges : list of Part
        By named range of the address space; kernel stacks apart where a layout says which they are.
    areas : list of Part
        By caller of the vmalloc area, where there is a layout; most accesses first.
    columns : list of str
    recorder : dict
        The recorder's own words.
    """

    schema: str = "pagewalk.trace-info/1"
    name: str
    records: int
    loads: int
    stores: int
    distinct_base_pages: int
    base_page_bytes: int
    cpus: int
    events: int
    mean_run: float
    data: Part
    code: Part
    ranges: list[Part]
    areas: list[Part]
    columns: list[str]
    files: list[File]
    sha256: str
    recorder: dict[str, object]


def information(
    trace: Trace, layout: Layout | None, progress: Callable[[int], None] | None = None
) -> TraceInfo:
    """Read a trace once and say what it is.

    Parameters
    ----------
    trace : Trace
    layout : Layout, optional
        Of the traced kernel. Without one, addresses are named as those of x86-64 with four levels.
    progress : callable, optional
        Called with the number of records read since the last call.
    """
    found = facts(trace, progress)
    page = (trace.pages << np.uint64(trace.page_shift) >> np.uint64(12)).astype(np.int64)
    number, names = name_ranges(page, layout.geometry.name if layout else "x86-64")
    label = np.array(names, object)[number]
    areas: list[Part] = []
    if layout is None:
        label[label == OUTSIDE] = "vmalloc space"
    else:
        owner = owners(layout, page)
        inside = owner >= 0
        stack = np.array([area.is_stack for area in layout.areas] + [False])[owner]
        label[stack] = "kernel stacks"
        label[inside & (label == OUTSIDE)] = "other vmalloc areas"
        caller = np.array([area.caller for area in layout.areas] + [""], object)[owner]
        areas = _parts(caller[inside], found.data[inside], page[inside], int(found.data.sum()))
    total = int(found.data.sum())
    return TraceInfo(
        name=trace.name,
        records=trace.accesses,
        loads=int(found.loads.sum()),
        stores=int(found.stores.sum()),
        distinct_base_pages=len(page),
        base_page_bytes=1 << trace.page_shift,
        cpus=trace.cpus,
        events=0 if trace.events is None else len(trace.events),
        mean_run=total / found.runs if found.runs else 0.0,
        data=_part("data", found.data, page, trace.accesses),
        code=_part("code", found.fetches, page, trace.accesses),
        ranges=_parts(label, found.data, page, total),
        areas=areas,
        columns=["page", *sorted(trace.columns), *([] if trace.spaces is None else ["space"])],
        files=_files(trace),
        sha256=trace.digest(),
        recorder=trace.about or {},
    )


def show(info: TraceInfo, console: Console | None = None) -> None:
    """Print to `console`, or to standard output."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False)
    console.print(Text(info.name, style="bold"), Text(f"sha256 {info.sha256[:16]}", style="dim"))
    for line in _sentences(info):
        console.print(Text(line))
    for title, parts in (("data accesses, by address", info.ranges), ("by caller of the area", info.areas)):
        if parts:
            console.print()
            console.print(_table(title, parts))
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
    several = f"; {info.cpus} CPUs" if info.cpus > 1 else ""
    events = f"; {info.events:,} flushes and switches" if info.events else ""
    stored = sum(file.size_bytes for file in info.files)
    on_disk = (
        f"; {words.size(stored)} on disk, {8 * stored / max(info.records, 1):.2f} bits a record"
        if stored
        else ""
    )
    yield f"columns {', '.join(info.columns)}{several}{events}{on_disk}"


def _table(title: str, parts: list[Part]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column(Text(title, style="bold"), no_wrap=True, overflow="ellipsis")
    for heading in ("accesses", "share", "base pages", "2M pages"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in parts[:CALLERS]:
        share = f"{words.number(100 * part.share, 2)} %"
        cells = (words.millions(part.accesses), share, f"{part.base_pages:,}", f"{part.pages_2m:,}")
        table.add_row(Text(part.name), *cells)
    if len(parts) > CALLERS:
        rest = parts[CALLERS:]
        count = words.millions(sum(part.accesses for part in rest))
        share = f"{words.number(100 * sum(part.share for part in rest), 2)} %"
        table.add_row(Text(f"{len(rest)} others", style="dim"), count, share)
    return table


def _parts(
    label: NDArray[np.object_], accesses: NDArray[np.int64], page: NDArray[np.int64], total: int
) -> list[Part]:
    parts = [
        _part(name, accesses[label == name], page[label == name], total) for name in dict.fromkeys(label)
    ]
    return sorted((part for part in parts if part.accesses), key=lambda part: -part.accesses)


def _part(name: str, accesses: NDArray[np.int64], page: NDArray[np.int64], total: int) -> Part:
    touched = page[accesses > 0]
    count = int(accesses.sum())
    return Part(
        name=name,
        accesses=count,
        share=count / total if total else 0.0,
        base_pages=len(touched),
        pages_2m=len(np.unique(touched >> 9)),
    )


def _files(trace: Trace) -> list[File]:
    if trace.origin is None:
        return []
    paths = column_files(trace.origin) if trace.origin.is_dir() else [trace.origin]
    return [File(name=path.name, size_bytes=path.stat().st_size) for path in paths]


def show_formats(readers: list[Reader], console: Console | None = None) -> None:
    """Print what can be read, and what each format tells, to `console` or standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    told = ("size", "store", "fetch", "cpu", "process", "time")
    for heading in ("format", *told, "written by"):
        table.add_column(
            heading, justify="center" if heading in told else "left", no_wrap=heading == "format"
        )
    for reader in readers:
        marks = ("\u2022" if each in reader.carries else "" for each in told)
        table.add_row(reader.name, *marks, reader.about)
    console = console or Console(highlight=False)
    console.print(table)
    console.print("\nOf time, only the order is kept. Files may be compressed: gzip, xz, zstd, bzip2, zip.")
