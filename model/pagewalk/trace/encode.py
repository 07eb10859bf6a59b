"""From addresses to a trace: which distinct pages there are, and the number of each access's page."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.trace import CHUNK, Chunk, Trace

PAGE_SHIFT = 12
"""log2 of the base page by which addresses are encoded."""


class RawChunk(NamedTuple):
    """Consecutive accesses as a foreign format has them."""

    address: NDArray[np.uint64]
    """Whole 64-bit virtual addresses."""
    flags: NDArray[np.uint8] | None = None
    """Bits as in `pagewalk.trace.trace`."""
    cpu: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Raw:
    """A trace that is not dictionary-encoded yet.

    Attributes
    ----------
    name : str
    read : callable
        ``read(size)`` yields `RawChunk` of at most `size` accesses. It is called twice at least: once to
        find the distinct pages, and each time the trace is read; it must yield the same accesses each time.
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
    """Distinct page numbers, numbered in the order of their first appearance. It grows as it is used."""

    def __init__(self) -> None:
        from pagewalk.kernels.encode import FREE, Table

        self.count = 0
        self._table = Table(np.full(1 << 11, FREE, np.int32), np.empty(1 << 10, np.int64))

    @property
    def pages(self) -> NDArray[np.uint64]:
        """The page numbers so far; uint64, shape (count,)."""
        return self._table.page[: self.count].astype(np.uint64)

    def encode(self, address: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Number the page of each address; new pages are added."""
        from pagewalk.kernels.encode import encode

        page = (address >> np.uint64(PAGE_SHIFT)).view(np.int64)
        out = np.empty(len(page), np.uint32)
        done = 0
        while done < len(page):
            more, self.count = encode(page[done:], self._table, self.count, out[done:])
            done += more
            if done < len(page):
                self._grow()
        return out

    def _grow(self) -> None:
        from pagewalk.kernels.encode import FREE, Table, rehash

        pages = np.empty(2 * self.count, np.int64)
        pages[: self.count] = self._table.page
        self._table = Table(np.full(4 * self.count, FREE, np.int32), pages)
        rehash(self._table, self.count)


def encoded(raw: Raw) -> Trace:
    """Make a trace of a raw one, reading it once to find its pages and never holding it.

    Raises
    ------
    BadInput
        If it cannot be read, or (while it is read again) is not what it was.
    """
    dictionary, accesses, cpus = Dictionary(), 0, 1
    for part in raw.read(CHUNK):
        dictionary.encode(part.address)
        accesses += len(part.address)
        if part.cpu is not None and len(part.cpu):
            cpus = max(cpus, int(part.cpu.max()) + 1)
    pages = dictionary.pages

    def read(wanted: frozenset[str], size: int) -> Iterator[Chunk]:
        start = 0
        for part in raw.read(size):
            page = dictionary.encode(part.address)
            start += len(page)
            if dictionary.count != len(pages) or start > accesses:
                break
            yield Chunk(
                start - len(page),
                page,
                offset=(part.address & np.uint64((1 << PAGE_SHIFT) - 1)).astype(np.uint16)
                if "offset" in wanted
                else None,
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
        cpus=cpus,
        page_shift=PAGE_SHIFT,
        origin=raw.origin,
        digest=raw.digest,
        about=raw.about,
    )
