"""What a trace is, for ``pagewalk trace info``: plain data."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pagewalk.linux.layout import Layout
from pagewalk.linux.regions import named, owners
from pagewalk.trace.facts import facts
from pagewalk.trace.store.read import column_files
from pagewalk.trace.trace import Trace


class Part(Struct, frozen=True, kw_only=True):
    """Accesses to a part of the address space, or of one kind.

    Attributes
    ----------
    name : str
    accesses : int
    share : float
        Of all data accesses; of `data`, `code` and `kinds`: of all records.
    mean_run : float
        Consecutive accesses on one base page; those of another kind between them (instruction fetches between
        data accesses; of `kinds`: anything else) do not end a run.
    base_pages, pages_2m : int
        Distinct base pages, and aligned pieces of 2 MiB, that they touch.
    """

    name: str
    accesses: int
    share: float
    mean_run: float
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
        All instruction fetches.
    kinds : list of Part
        Loads, stores, instruction fetches; those that there are.
    mean_run : float
        Of all data accesses, as in `data`.
    ranges : list of Part
        By named range of the address space; kernel stacks apart where a layout says which they are.
    areas : list of Part
        By caller of the vmalloc area, where there is a layout; most accesses first.
    spaces : list of Part
        By address space, where the trace has them; 0 is shared by all.
    records_by_cpu : list of int
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
    kinds: list[Part]
    ranges: list[Part]
    areas: list[Part]
    spaces: list[Part]
    records_by_cpu: list[int]
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
    name, caller = named(layout, page)
    in_area = caller != "" if layout is None else owners(layout, page) >= 0
    data = _Counts(found.data, found.runs[:, 3], page)
    kinds = [
        _part(kind, _Counts(count, found.runs[:, row], page), trace.accesses)
        for row, (kind, count) in enumerate(
            {"loads": found.loads, "stores": found.stores, "instruction fetches": found.fetches}.items()
        )
    ]
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
        mean_run=_part("data", data, total).mean_run,
        data=_part("data", data, trace.accesses),
        code=_part("code", _Counts(found.fetches, found.runs[:, 2], page), trace.accesses),
        kinds=[kind for kind in kinds if kind.accesses],
        ranges=_parts(name, data, total),
        areas=_parts(caller[in_area], _some(data, in_area), total),
        spaces=[] if trace.spaces is None else _parts(trace.spaces.astype(str).astype(object), data, total),
        records_by_cpu=found.by_cpu.tolist(),
        columns=["page", *sorted(trace.columns), *([] if trace.spaces is None else ["space"])],
        files=_files(trace),
        sha256=trace.digest(),
        recorder=trace.about or {},
    )


class _Counts(NamedTuple):
    """Accesses and runs of each of some pages, parallel arrays."""

    accesses: NDArray[np.int64]
    runs: NDArray[np.int64]
    page: NDArray[np.int64]


def _some(counts: _Counts, which: NDArray[np.bool_]) -> _Counts:
    return _Counts(*(column[which] for column in counts))


def _parts(name: NDArray[np.object_], counts: _Counts, total: int) -> list[Part]:
    """The accesses by name of their page, most first; `total` is the whole of which each has its share."""
    parts = [_part(each, _some(counts, name == each), total) for each in dict.fromkeys(name)]
    return sorted((part for part in parts if part.accesses), key=lambda part: -part.accesses)


def _part(name: str, counts: _Counts, total: int) -> Part:
    touched = counts.page[counts.accesses > 0]
    count, runs = int(counts.accesses.sum()), int(counts.runs.sum())
    return Part(
        name=name,
        accesses=count,
        share=count / total if total else 0.0,
        mean_run=count / runs if runs else 0.0,
        base_pages=len(touched),
        pages_2m=len(np.unique(touched >> 9)),
    )


def _files(trace: Trace) -> list[File]:
    if trace.origin is None:
        return []
    paths = column_files(trace.origin) if trace.origin.is_dir() else [trace.origin]
    return [File(name=path.name, size_bytes=path.stat().st_size) for path in paths]
