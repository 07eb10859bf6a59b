"""A trace in memory: a table of distinct base pages and one small integer for each access.

Everything that depends on an address alone is worked out once for each distinct base page; the
accesses themselves are only ever read in order, a chunk at a time, so a trace may be larger than memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20
"""Records in a chunk, unless told otherwise."""

SIZE_MASK, STORE, KERNEL, FETCH = 0x07, 0x08, 0x10, 0x20
"""Bits of the flags column: log2 of the size in bytes, store, kernel code, instruction fetch."""

FLUSH_ALL, FLUSH_LOCAL, FLUSH_RANGE, SWITCH, UNMAP, RUNNING = range(6)
"""Kinds of event: everything; all but global entries; an address range; a context switch to `space`;
an address range that is unmapped; `space` has run on the CPU until now, since before the trace began."""

EVENT = np.dtype(
    [("position", "<u8"), ("kind", "u1"), ("cpu", "<i2"), ("space", "<u2"), ("start", "<u8"), ("end", "<u8")]
)
"""One event. It happens before the record at `position`; cpu -1 is every CPU; `end` is exclusive."""


class Chunk(NamedTuple):
    """Consecutive records of a trace. Columns that the trace lacks are None."""

    start: int
    """Position of the first record in the trace."""
    page: NDArray[np.uint32]
    """Index into `Trace.pages`, for each record."""
    offset: NDArray[np.uint16] | None = None
    """Byte in the base page."""
    flags: NDArray[np.uint8] | None = None
    """Bits as above. A trace without flags has loads only."""
    cpu: NDArray[np.uint8] | None = None
    """The CPU that made the access."""


@dataclass(frozen=True)
class Trace:
    """What a program or kernel accessed, in order.

    Attributes
    ----------
    name : str
        For people.
    pages : ndarray of uint64, shape (distinct,)
        The distinct base pages: address >> `page_shift`, of whole 64-bit addresses. In any order.
    accesses : int
        Number of records, instruction fetches included.
    read : callable
        ``read(columns, size)`` yields `Chunk` of at most `size` records, filling those of
        "offset", "flags", "cpu" that are both asked for and present. May be called again from the start.
    columns : frozenset of str
        The optional columns present: "offset", "flags", "cpu".
    spaces : ndarray of uint16, shape (distinct,), optional
        Address space of each distinct page; 0 is shared by all (global kernel pages).
        Two processes' pages at one address are two distinct pages.
    events : ndarray of EVENT
        Flushes, switches, unmappings, sorted by position.
    page_shift : int
        log2 of the base page of the dictionary in bytes.
    cpus : int
        Number of CPUs.
    origin : Path, optional
        The file or folder it came from; a layout may lie beside it.
    digest : callable, optional
        SHA-256 (hex) of the content; worked out when asked for.
    about : dict, optional
        The recorder's own words (kernel, command line, method), shown by ``trace info``.
    """

    name: str
    pages: NDArray[np.uint64]
    accesses: int
    read: Callable[[frozenset[str], int], Iterator[Chunk]]
    columns: frozenset[str] = frozenset()
    spaces: NDArray[np.uint16] | None = None
    events: NDArray[np.void] | None = None
    page_shift: int = 12
    cpus: int = 1
    origin: Path | None = None
    digest: Callable[[], str] = lambda: ""
    about: dict[str, object] | None = None

    def chunks(self, *columns: str, size: int = CHUNK) -> Iterator[Chunk]:
        """Read the records in order, with the named optional columns where the trace has them."""
        return self.read(frozenset(columns) & self.columns, size)


def from_pages(
    name: str,
    pages: NDArray[np.uint64],
    page: NDArray[np.unsignedinteger],
    *,
    offset: NDArray[np.uint16] | None = None,
    flags: NDArray[np.uint8] | None = None,
    cpu: NDArray[np.uint8] | None = None,
    spaces: NDArray[np.uint16] | None = None,
    events: NDArray[np.void] | None = None,
    digest: Callable[[], str] = lambda: "",
) -> Trace:
    """Make a trace of arrays that are in memory already."""
    columns: dict[str, NDArray[Any] | None] = {"offset": offset, "flags": flags, "cpu": cpu}
    present = {key: value for key, value in columns.items() if value is not None}

    def read(wanted: frozenset[str], size: int) -> Iterator[Chunk]:
        for start in range(0, len(page), size):
            part = slice(start, start + size)
            yield Chunk(
                start,
                page[part].astype(np.uint32, copy=False),
                **{key: present[key][part] for key in wanted},
            )

    return Trace(
        name,
        pages,
        len(page),
        read,
        frozenset(present),
        spaces=spaces,
        events=events,
        cpus=1 if cpu is None or not len(cpu) else int(cpu.max()) + 1,
        digest=digest,
    )


def from_addresses(
    name: str,
    addresses: NDArray[np.uint64],
    *,
    flags: NDArray[np.uint8] | None = None,
    cpu: NDArray[np.uint8] | None = None,
) -> Trace:
    """Dictionary-encode addresses that are in memory already."""
    pages, page = np.unique(addresses >> np.uint64(12), return_inverse=True)
    offset = (addresses & np.uint64(0xFFF)).astype(np.uint16)
    return from_pages(name, pages, page.astype(np.uint32), offset=offset, flags=flags, cpu=cpu)
