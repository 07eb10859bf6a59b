"""Let a kernel live through a scenario's events; what is accessed meanwhile becomes a trace over its mapping.

An address may be mapped differently at different times: an area is freed and another comes to lie there, a
leaf of the direct map is split. So a distinct page of such a trace is a page *as it was mapped then*; two of
them may have the same address. What the TLB still holds of the old one is dropped by the flush that the
kernel made between.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import TOP
from pagewalk.linux.layout import Layout
from pagewalk.linux.mapping import Mapping, Region, map_trace
from pagewalk.linux.memory.kernel import Event, Kernel
from pagewalk.linux.memory.maps import Happening
from pagewalk.linux.modelled import layout_of
from pagewalk.replay.result import KernelLife
from pagewalk.study.play.accesses import addresses, flags
from pagewalk.study.play.life import born, failures, sample, waste_bytes
from pagewalk.study.play.steps import Access, KernelTable, Step, expanded, start
from pagewalk.trace.trace import EVENT, FLUSH_ALL, FLUSH_RANGE, Trace, from_pages

FLUSHES = {"flush-all": FLUSH_ALL, "flush-range": FLUSH_RANGE}


class _Part(NamedTuple):
    """The accesses of one event."""

    page: NDArray[np.int64]
    """Rows of `_Pages`, for each access."""
    offset: NDArray[np.uint16]
    flags: NDArray[np.uint8]
    cpu: NDArray[np.uint8]


class _Pages:
    """Distinct pages as they were mapped when they were touched."""

    def __init__(self) -> None:
        self.columns: list[NDArray[np.int64]] = []
        """Page number, leaf, frame, contiguous block, region; a row for each page of each event."""
        self.rows = 0
        self.regions: dict[tuple[str, str, str], Region] = {}
        self.number: dict[tuple[str, str, str], int] = {}

    def add(self, mapping: Mapping) -> int:
        """Add the pages of one event; returns their first row."""
        numbers = np.array([self._region(region) for region in mapping.regions], np.int64)
        shape = (mapping.page, mapping.leaf_shift, mapping.frame, mapping.contiguous_shift)
        self.columns.append(np.column_stack([*shape, numbers[mapping.region]]).astype(np.int64))
        self.rows += len(mapping.page)
        return self.rows - len(mapping.page)

    def _region(self, region: Region) -> int:
        key = region.name, region.caller, region.kind
        was = self.regions.get(key)
        if was is None:
            self.number[key], self.regions[key] = len(self.number), region
        elif was.leaf != region.leaf:
            self.regions[key] = replace(was, leaf="mixed")
        return self.number[key]


@dataclass(frozen=True)
class Played:
    """What one kernel made of a scenario: accesses, what mapped them, what happened to memory."""

    trace: Trace
    mapping: Mapping
    life: KernelLife


def play(name: str, table: KernelTable, arch: str, steps: list[Step], where: object) -> Played:
    """Let a kernel live through events.

    Parameters
    ----------
    name : str
        Of the trace.
    table : KernelTable
    arch : str
        Page-table geometry, if the table names none.
    steps : list of Step
    where : object
        The scenario's file, for messages.

    Raises
    ------
    BadInput
        An event that cannot be, or nothing is accessed.
    """
    try:
        kernel = start(table, table.arch or arch)
    except BadInput as error:
        there = f"{where}: kernel {table.name}"
        raise BadInput(there, f"{error.where}: {error.what}", error.mend) from None
    life, pages = born(table, kernel), _Pages()
    parts: list[_Part] = []
    happened: list[tuple[int, Happening]] = []
    mapper, done = _Mapper(kernel), 0
    for place, event in expanded(steps):
        try:
            if isinstance(event, Access):
                parts.append(mapper.accesses(event, len(parts), pages))
                done += len(parts[-1].page)
            else:
                happened += [(done, happening) for happening in kernel.apply(event)]
        except BadInput as error:
            there = f"{where}: {place}, kernel {table.name}"
            raise BadInput(there, f"{error.where}: {error.what}", error.mend) from None
        sample(life, kernel, _named(event), done)
    if not parts:
        raise BadInput(where, "no event accesses anything", 'add one with event = "access"')
    life.failures.update(failures(kernel))
    return Played(*_put_together(name, table, kernel, pages, parts, happened, life), life)


def _named(event: Event) -> str:
    name = getattr(event, "name", "")
    return f"{event.__struct_config__.tag} {name}".rstrip()


class _Mapper:
    """What maps the kernel's pages now; worked out anew when something has happened."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.seen = kernel, -1
        self.layout: Layout | None = None
        self.waste: dict[str, int] = {}
        """Region of an area, by its name -> bytes that rounding to leaves added."""

    def accesses(self, event: Access, number: int, pages: _Pages) -> _Part:
        """The accesses of an event, its pages as they are mapped now."""
        kernel = self.kernel
        at = addresses(kernel, event, number)
        state = hash((len(kernel.maps.log), len(kernel.areas), *kernel.areas))
        if self.layout is None or state != self.seen:
            self.layout, self.seen = layout_of(kernel), state
            self.waste = {
                f"vmalloc {area.start:#x}": waste_bytes(area, kernel.page_bytes)
                for area in kernel.areas.values()
            }
        distinct, page = np.unique(at.ravel() >> np.uint64(12), return_inverse=True)
        mapping = map_trace(distinct, self.layout, "recorded")
        shape = at.shape
        return _Part(
            page.ravel() + pages.add(replace(mapping, regions=tuple(map(self._wasting, mapping.regions)))),
            (at.ravel() & np.uint64(0xFFF)).astype(np.uint16),
            np.tile(flags(event), shape[0]),
            np.full(at.size, event.cpu, np.uint8),
        )

    def _wasting(self, region: Region) -> Region:
        """The region of an area with the bytes that rounding added to it."""
        return replace(region, waste_bytes=self.waste.get(region.name, 0))


def _put_together(
    name: str,
    table: KernelTable,
    kernel: Kernel,
    pages: _Pages,
    parts: list[_Part],
    happened: list[tuple[int, Happening]],
    life: KernelLife,
) -> tuple[Trace, Mapping]:
    rows, number = np.unique(np.concatenate(pages.columns), axis=0, return_inverse=True)
    virtual, leaf, frame, contiguous, region = (np.ascontiguousarray(column) for column in rows.T)
    events = [
        (at, FLUSHES[h.what], -1, 0, h.start, min(h.end, TOP - 1)) for at, h in happened if h.what in FLUSHES
    ]
    trace = from_pages(
        name,
        virtual.astype(np.uint64),
        number.ravel()[np.concatenate([part.page for part in parts])].astype(np.uint32),
        offset=np.concatenate([part.offset for part in parts]),
        flags=np.concatenate([part.flags for part in parts]),
        cpu=np.concatenate([part.cpu for part in parts]),
        events=np.array(events, EVENT),
    )
    mapping = Mapping(
        table.name,
        kernel.geometry,
        virtual,
        leaf.astype(np.uint8),
        frame,
        contiguous.astype(np.uint8),
        region.astype(np.int32),
        tuple(pages.regions.values()),
        {name: max(life.memory[name]) for name in ("page_tables", "rounding_waste")},
        tuple(_notes(table, kernel)),
    )
    return replace(trace, cpus=table.cpus), mapping


def _notes(table: KernelTable, kernel: Kernel) -> Iterator[str]:
    """What a reader must know of a kernel that its name does not say."""
    said = [*table.parameters, *(["aged memory"] if table.aged else [])]
    said += [f"the direct map reset by {table.reset}"] if table.reset != "page" else []
    if said or table.name != table.release:
        yield f"{table.name} is Linux {table.release}{' with ' if said else ''}{', '.join(said)}"
    if table.huge_since:
        yield f"{kernel.rules.arch.name} is taken to have huge vmalloc since {table.huge_since}"
    yield "Kernels are modelled, not recorded; page tables and rounding waste are the highest of their lives."


def digest(tables: list[KernelTable], steps: list[Step]) -> str:
    """SHA-256 (hex) of what a scenario's accesses follow from."""
    return hashlib.sha256(msgspec.json.encode((tables, steps))).hexdigest()
