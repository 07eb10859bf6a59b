"""Cut a trace down: to a stretch of its records, to addresses, to kinds of access, to CPUs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.trace import CHUNK, EVENT, FETCH, STORE, Chunk, Trace

KINDS = ("load", "store", "fetch")
"""Kinds of access, as machine files name them too."""

_NONE, _SOME, _ALL = range(3)
"""How much of a page lies in the ranges."""


@dataclass(frozen=True)
class Wanted:
    """Which records of a trace. Each field narrows it further; left out, it does not.

    Attributes
    ----------
    ranges : sequence of (int, int)
        Addresses in one of them; ends are exclusive, up to 2**64.
    pages : ndarray of bool, shape (distinct,)
        Those of `Trace.pages`.
    kinds : collection of str
        Of `KINDS`.
    cpus : collection of int
    """

    ranges: tuple[tuple[int, int], ...] = ()
    pages: NDArray[np.bool_] | None = None
    kinds: frozenset[str] = frozenset(KINDS)
    cpus: frozenset[int] | None = None


def cut(
    trace: Trace,
    first: int = 0,
    end: int | None = None,
    wanted: Wanted | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trace:
    """Take part of a trace, with the pages and events that occur in it.

    The trace is read once to find those pages. Events keep their place between the records that stay; those
    at `end` belong to what comes after, if anything does; those of CPUs that are not wanted go. CPUs keep
    their numbers. Of the recorder's words, "stats" are left out: they are figures of the whole.

    Parameters
    ----------
    trace : Trace
    first, end : int
        Records `first` up to `end` (exclusive), counted from 0.
    wanted : Wanted, optional
        Which of them.
    progress : callable, optional
        Called with the number of records that were looked at since the last call.

    Raises
    ------
    BadInput
        If the trace has no such records, or cannot tell, or is damaged.
    """
    end = trace.accesses if end is None else end
    where = trace.origin or trace.name
    if not 0 <= first < end <= trace.accesses:
        raise BadInput(where, f"no records {first}:{end}", f"it has records 0:{trace.accesses}")
    keep = None if wanted is None else _keeper(trace, wanted)
    looked_at = frozenset({"offset", "flags", "cpu"} if keep else ()) & trace.columns

    def parts(asked: frozenset[str], size: int) -> Iterator[tuple[Chunk, NDArray[np.bool_] | None]]:
        """The records from `first` to `end`, and which of them stay (None: all)."""
        for chunk in trace.read(asked | looked_at, size):
            low, high = max(first - chunk.start, 0), min(end - chunk.start, len(chunk.page))
            if high <= 0:
                return
            if low < high:
                part = _rows(chunk, slice(low, high))
                yield part._replace(start=chunk.start + low - first), None if keep is None else keep(part)

    events = _events(trace, first, end, wanted)
    happened = np.zeros(len(events), np.uint64)
    used, accesses = np.zeros(len(trace.pages), bool), 0
    for part, stays in parts(frozenset(), CHUNK):
        here = slice(*np.searchsorted(events["position"], (part.start, part.start + len(part.page))))
        place = events["position"][here] - np.uint64(part.start)
        if stays is not None:
            place = np.append(0, np.cumsum(stays))[place].astype(np.uint64)
        happened[here] = place + np.uint64(accesses)
        page = part.page if stays is None else part.page[stays]
        used[page] = True
        accesses += len(page)
        if progress is not None:
            progress(len(part.page))
    happened[events["position"] >= end - first] = accesses
    if not accesses:
        raise BadInput(where, "has no such records", "pagewalk trace info shows what it has")
    events["position"] = happened
    number = (np.cumsum(used) - 1).astype(np.uint32)

    def read(asked: frozenset[str], size: int) -> Iterator[Chunk]:
        done = 0
        for part, stays in parts(asked, size):
            left = part if stays is None else _rows(part, stays)
            if len(left.page):
                unasked = dict.fromkeys(looked_at - asked)
                yield left._replace(start=done, page=number[left.page], **unasked)
            done += len(left.page)

    said = f"{first}:{end}" + ("" if wanted is None else f" {told(wanted)}".rstrip())
    marked = "" if wanted is None or wanted.pages is None else sha256(wanted.pages.tobytes()).hexdigest()
    return replace(
        trace,
        name=f"{trace.name}[{said}]",
        pages=trace.pages[used],
        accesses=accesses,
        read=read,
        spaces=None if trace.spaces is None else trace.spaces[used],
        events=None if trace.events is None else events,
        about={key: value for key, value in (trace.about or {}).items() if key != "stats"},
        digest=lambda: f"{trace.digest()}[{said}]{marked}",
    )


def told(wanted: Wanted) -> str:
    """What is wanted besides pages, in words: ``0x1000-0x2000, loads and stores, CPU 0 and 2``."""
    said = [f"{start:#x}-{end:#x}" for start, end in wanted.ranges]
    if wanted.kinds != frozenset(KINDS):
        said.append(
            " and ".join(
                f"{kind}s" if kind != "fetch" else "fetches" for kind in KINDS if kind in wanted.kinds
            )
        )
    if wanted.cpus is not None:
        said.append(f"CPU {' and '.join(map(str, sorted(wanted.cpus)))}")
    return ", ".join(said)


def _rows(chunk: Chunk, rows: Any) -> Chunk:
    """Some records of a chunk."""
    return Chunk(chunk.start, *(None if column is None else column[rows] for column in chunk[1:]))  # type: ignore[arg-type]


def _events(trace: Trace, first: int, end: int, wanted: Wanted | None) -> NDArray[np.void]:
    """Those that stay, with positions counted from `first`."""
    events = np.zeros(0, EVENT) if trace.events is None else trace.events
    position = events["position"]
    events = events[(position >= first) & ((position < end) | (end == trace.accesses))].copy()
    events["position"] -= np.uint64(first)
    if wanted is not None and wanted.cpus is not None:
        events = events[(events["cpu"] < 0) | np.isin(events["cpu"], sorted(wanted.cpus))]
    return events


def _keeper(trace: Trace, wanted: Wanted) -> Callable[[Chunk], NDArray[np.bool_]]:
    """A function that tells which records of a chunk are wanted."""
    if wanted.cpus is not None and (unknown := sorted(wanted.cpus - set(range(trace.cpus)))):
        known = "CPU 0 only" if trace.cpus == 1 else f"CPUs 0 to {trace.cpus - 1}"
        raise BadInput(trace.origin or trace.name, f"no CPU {unknown[0]}", f"it has {known}")
    ranges = _merged(wanted.ranges)
    amount = _inside(trace, ranges)
    if wanted.pages is not None:
        amount[~wanted.pages] = _NONE
    if "offset" not in trace.columns and (amount == _SOME).any():
        mend = f"give whole pages of {1 << trace.page_shift} bytes"
        raise BadInput(trace.origin or trace.name, "has no offsets, and a range ends within a page", mend)

    def keep(chunk: Chunk) -> NDArray[np.bool_]:
        here = amount[chunk.page]
        stays: NDArray[np.bool_] = here == _ALL
        if (some := np.flatnonzero(here == _SOME)).size:
            assert chunk.offset is not None
            address = trace.pages[chunk.page[some]] << np.uint64(trace.page_shift) | chunk.offset[some]
            for start, end in ranges:
                stays[some] |= (address >= np.uint64(start)) & (address <= np.uint64(end - 1))
        if wanted.kinds != frozenset(KINDS):
            flags = np.zeros(len(here), np.uint8) if chunk.flags is None else chunk.flags
            kind = np.where(flags & FETCH, 2, (flags & STORE) // STORE)
            stays &= np.isin(kind, [KINDS.index(each) for each in wanted.kinds])
        if wanted.cpus is not None and chunk.cpu is not None:
            stays &= np.isin(chunk.cpu, sorted(wanted.cpus))
        return stays

    return keep


def _inside(trace: Trace, ranges: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    """How much of each distinct page lies in one of the ranges."""
    if not ranges:
        return np.full(len(trace.pages), _ALL, np.uint8)
    first = trace.pages << np.uint64(trace.page_shift)
    last = first | np.uint64((1 << trace.page_shift) - 1)
    amount = np.full(len(first), _NONE, np.uint8)
    for start, end in ranges:
        low, high = np.uint64(start), np.uint64(end - 1)
        amount[(first <= high) & (last >= low)] = _SOME
        amount[(first >= low) & (last <= high)] = _ALL
    return amount


def _merged(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The ranges in ascending order, those that touch as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    return tuple(merged)
