"""A part of a trace."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pagewalk.errors import BadInput
from pagewalk.trace.trace import CHUNK, Chunk, Trace


def cut(trace: Trace, first: int, end: int) -> Trace:
    """Records `first` up to `end` (exclusive) of a trace, with the pages and events that occur in them.

    The trace is read once to find those pages. An event at `end` belongs to what comes after. Of the
    recorder's words, "stats" are left out: they are figures of the whole.

    Raises
    ------
    BadInput
        If the trace has no such records, or is damaged.
    """
    if not 0 <= first < end <= trace.accesses:
        raise BadInput(
            trace.origin or trace.name,
            f"no records {first}:{end}",
            f"it has records 0:{trace.accesses}",
        )

    def part(array: Any, low: int, high: int) -> Any:
        return None if array is None else array[low:high]

    def inside(wanted: frozenset[str], size: int) -> Iterator[Chunk]:
        for chunk in trace.read(wanted, size):
            low, high = max(first - chunk.start, 0), min(end - chunk.start, len(chunk.page))
            if high <= 0:
                return
            if low < high:
                yield Chunk(chunk.start + low - first, *(part(array, low, high) for array in chunk[1:]))

    used = np.zeros(len(trace.pages), bool)
    for chunk in inside(frozenset(), CHUNK):
        used[chunk.page] = True
    number = (np.cumsum(used) - 1).astype(np.uint32)

    def read(wanted: frozenset[str], size: int) -> Iterator[Chunk]:
        return (chunk._replace(page=number[chunk.page]) for chunk in inside(wanted, size))

    events = trace.events
    if events is not None:
        events = events[(events["position"] >= first) & (events["position"] < end)].copy()
        events["position"] -= np.uint64(first)
    return replace(
        trace,
        name=f"{trace.name}[{first}:{end}]",
        pages=trace.pages[used],
        accesses=end - first,
        read=read,
        spaces=None if trace.spaces is None else trace.spaces[used],
        events=events,
        about={key: value for key, value in (trace.about or {}).items() if key != "stats"},
        digest=lambda: f"{trace.digest()}[{first}:{end}]",
    )
