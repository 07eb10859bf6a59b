"""From addresses to a trace: which distinct pages there are, and the number of each access's page."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.kept import Column
from pagewalk.trace.trace import CHUNK, Chunk, Trace

PAGE_SHIFT = 12
"""log2 of the base page by which addresses are encoded."""

GATHERED = 1 << 17
"""Accesses that are encoded and written together: a call costs little beside them. Ours."""


class RawChunk(NamedTuple):
    """Consecutive accesses as a foreign format has them."""

    address: NDArray[np.uint64]
    """Whole 64-bit virtual addresses."""
    flags: NDArray[np.uint8] | None = None
    """Bits as in `pagewalk.trace.trace`."""
    cpu: NDArray[np.uint8] | None = None
    space: NDArray[np.uint16] | None = None
    """Address space of each access, as in `Trace.spaces`."""
    events: NDArray[np.void] | None = None
    """As in `Trace.events`, but `position` counts from the chunk's first access."""


def pieces(chunk: RawChunk, size: int) -> Iterator[RawChunk]:
    """A chunk in pieces of at most `size` accesses; nothing where it has neither accesses nor events."""
    count = len(chunk.address)
    if count <= size:
        if count or (chunk.events is not None and len(chunk.events)):
            yield chunk
        return
    for start in range(0, count, size):
        end = min(start + size, count)
        events = chunk.events
        if events is not None:
            inside = (events["position"] >= start) & ((events["position"] < end) | (end == count))
            events = events[inside].copy()
            events["position"] -= np.uint64(start)
        yield RawChunk(
            chunk.address[start:end],
            None if chunk.flags is None else chunk.flags[start:end],
            None if chunk.cpu is None else chunk.cpu[start:end],
            None if chunk.space is None else chunk.space[start:end],
            events,
        )


def offsets(address: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Where in its base page each address lies, in bytes."""
    low = address.astype(np.uint16)
    low &= np.uint16((1 << PAGE_SHIFT) - 1)
    return low


def gathered(chunks: Iterable[RawChunk], least: int = GATHERED) -> Iterator[RawChunk]:
    """Consecutive chunks with the same columns, joined to ones of `least` accesses or more.

    Each is to be used before the next is asked for, which may take its place in memory.
    """
    parts: list[RawChunk] = []
    room: dict[str, NDArray[Any]] = {}
    for chunk in chunks:
        parts.append(chunk)
        if sum(len(part.address) for part in parts) >= least:
            yield _joined(parts, room)
            parts = []
    if parts:
        yield _joined(parts, room)


def _joined(parts: list[RawChunk], room: dict[str, NDArray[Any]]) -> RawChunk:
    """The chunks as one, in memory that the one before had if there is enough of it in `room`."""
    if len(parts) == 1:
        return parts[0]
    events, count = Events(), 0
    for part in parts:
        events.add(part.events, count)
        count += len(part.address)

    def whole(name: str) -> NDArray[Any] | None:
        columns = [getattr(part, name) for part in parts]
        if columns[0] is None:
            return None
        if name not in room or len(room[name]) < count:
            room[name] = np.empty(2 * count, columns[0].dtype)
        return np.concatenate(columns, out=room[name][:count])

    address = whole("address")
    assert address is not None
    return RawChunk(address, whole("flags"), whole("cpu"), whole("space"), events.all)


@dataclass(frozen=True)
class Raw:
    """A trace that is not dictionary-encoded yet.

    Attributes
    ----------
    name : str
    read : callable
        ``read(size)`` yields `RawChunk` of at most `size` accesses. It is called to find the distinct pages,
        and may be called each time the trace is read; it must yield the same accesses each time.
    columns : frozenset of str
        Those of "flags", "cpu" that its chunks have.
    digest : callable
        SHA-256 (hex) of the content.
    origin : Path, optional
    about : dict, optional
    """

    name: str
    read: Callable[[int], Iterator[RawChunk]]
    columns: frozenset[str]
    digest: Callable[[], str]
    origin: Path | None = None
    about: dict[str, object] | None = None


class Dictionary:
    """Distinct pages of each address space, numbered as they first appear. It grows as it is used."""

    def __init__(self) -> None:
        self._pages, self._spaced = _Pages(), _Numbers()

    @property
    def count(self) -> int:
        """How many there are so far."""
        return self._spaced.count or self._pages.count

    @property
    def pages(self) -> NDArray[np.uint64]:
        """The page numbers so far; uint64, shape (count,)."""
        pages = self._pages.keys.view(np.uint64)
        return pages[self._spaced.keys & 0xFFFFFFFF] if self._spaced.count else pages

    @property
    def spaces(self) -> NDArray[np.uint16] | None:
        """The address space of each; uint16, shape (count,). None if none was given."""
        return (self._spaced.keys >> 32).astype(np.uint16) if self._spaced.count else None

    def encode(
        self, address: NDArray[np.uint64], space: NDArray[np.uint16] | None = None
    ) -> NDArray[np.uint32]:
        """Number the page of each address; new pages are added. Give spaces always or never."""
        number = self._pages.encode(np.require(address.view(np.int64), requirements=["C", "W"]))
        if space is None:
            return number
        return self._spaced.encode(number.astype(np.int64) | space.astype(np.int64) << 32)


class _Pages:
    """Distinct 4 KiB pages of addresses, numbered in the order of their first appearance."""

    def __init__(self) -> None:
        from pagewalk.kernels.trace.addresses import make_numbers

        self._numbers = make_numbers(1 << 10, 1 << 7)

    @property
    def count(self) -> int:
        """How many there are so far."""
        return int(self._numbers.used[0])

    @property
    def keys(self) -> NDArray[np.int64]:
        """The page numbers so far, by number; int64, shape (count,)."""
        return self._numbers.page[: self.count].copy()

    def encode(self, address: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Number the page of each address; new ones are added."""
        from pagewalk.kernels.trace.addresses import number_pages, with_more_room

        out = np.empty(len(address), np.uint32)
        done = number_pages(address, self._numbers, out)
        while done < len(address):
            self._numbers = with_more_room(self._numbers)
            done += number_pages(address[done:], self._numbers, out[done:])
        return out


class _Numbers:
    """Distinct keys from 0 to 2**52 - 1, numbered in the order of their first appearance."""

    def __init__(self) -> None:
        from pagewalk.kernels.trace.encode import FREE, Table

        self.count = 0
        self._table = Table(np.full(1 << 11, FREE, np.int32), np.empty(1 << 10, np.int64))

    @property
    def keys(self) -> NDArray[np.int64]:
        """The keys so far, by number; int64, shape (count,)."""
        return self._table.page[: self.count].copy()

    def encode(self, key: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Number each key; new ones are added."""
        from pagewalk.kernels.trace.encode import encode

        out = np.empty(len(key), np.uint32)
        done = 0
        while done < len(key):
            more, self.count = encode(key[done:], self._table, self.count, out[done:])
            done += more
            if done < len(key):
                self._grow()
        return out

    def _grow(self) -> None:
        from pagewalk.kernels.trace.encode import FREE, Table, rehash

        pages = np.empty(2 * self.count, np.int64)
        pages[: self.count] = self._table.page
        self._table = Table(np.full(4 * self.count, FREE, np.int32), pages)
        rehash(self._table, self.count)


class Events:
    """The events of chunks that come one after the other."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.void]] = []

    def add(self, events: NDArray[np.void] | None, start: int) -> None:
        """Add those of the chunk that begins at record `start`."""
        if events is not None and len(events):
            moved = events.copy()
            moved["position"] += np.uint64(start)
            self._parts.append(moved)

    @property
    def all(self) -> NDArray[np.void] | None:
        """All of them, with positions in the trace; None if there are none."""
        return np.concatenate(self._parts) if self._parts else None


def encoded(raw: Raw) -> Trace:
    """Make a trace of a raw one, reading it once to find its pages and never holding it in memory.

    The numbers of the pages, and the columns that the raw trace has, are kept for the next readings
    (`pagewalk.trace.kept`). It is read again where offsets are asked for, or where there was no room.

    Raises
    ------
    BadInput
        If it cannot be read, or (while it is read again) is not what it was.
    """
    dictionary, accesses, cpus, events = Dictionary(), 0, 1, Events()
    with ExitStack() as stack:
        types = {"page": np.uint32} | dict.fromkeys(sorted(raw.columns), np.uint8)
        columns = {name: stack.enter_context(closing(Column(of))) for name, of in types.items()}
        for part in gathered(raw.read(CHUNK)):
            columns["page"].add(dictionary.encode(part.address, part.space))
            for name in raw.columns:
                columns[name].add(getattr(part, name))
            events.add(part.events, accesses)
            accesses += len(part.address)
            if part.cpu is not None and len(part.cpu):
                cpus = max(cpus, int(part.cpu.max()) + 1)
        kept = {name: found for name, column in columns.items() if (found := column.done()) is not None}
    pages = dictionary.pages

    def read(wanted: frozenset[str], size: int) -> Iterator[Chunk]:
        names = ["page", *sorted(wanted)]
        if not kept.keys() >= set(names):
            yield from read_again(wanted, size)
            return
        start = 0
        for parts in zip(*(kept[name].parts(size) for name in names), strict=True):
            yield Chunk(start, **dict(zip(names, parts, strict=True)))
            start += len(parts[0])

    def read_again(wanted: frozenset[str], size: int) -> Iterator[Chunk]:
        start = 0
        for part in raw.read(size):
            page = dictionary.encode(part.address, part.space)
            start += len(page)
            if dictionary.count != len(pages) or start > accesses:
                break
            yield Chunk(
                start - len(page),
                page,
                offset=offsets(part.address) if "offset" in wanted else None,
                flags=part.flags if "flags" in wanted else None,
                cpu=part.cpu if "cpu" in wanted else None,
            )
        if dictionary.count != len(pages) or start != accesses:
            raise BadInput(raw.origin or raw.name, "changed while it was read", "leave it alone during a run")

    return Trace(
        name=raw.name,
        pages=pages,
        accesses=accesses,
        read=read,
        columns=raw.columns | {"offset"},
        spaces=dictionary.spaces,
        events=events.all,
        cpus=cpus,
        page_shift=PAGE_SHIFT,
        origin=raw.origin,
        digest=raw.digest,
        about=raw.about,
    )
