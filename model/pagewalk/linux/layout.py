"""A layout: which vmalloc areas existed on one day, and which leaves mapped them.

Read from a trace folder (``regions.json``, ``leaf.npy``, ``leaf_end.npy``) here, from other
observations by `pagewalk.linux.observe`.
"""

import contextlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GEOMETRIES, Geometry

LEAF_RUN = np.dtype(
    [
        ("va", "<u8"),
        ("pa", "<u8"),
        ("count", "<u4"),
        ("shift", "u1"),
        ("writable", "u1"),
        ("exec", "u1"),
        ("global", "u1"),
    ]
)
"""A run of leaf entries of one size and equal permissions, contiguous in virtual and physical address."""

UNKNOWN_FRAME = (1 << 64) - 1
"""`pa` of a run whose physical address is not known."""

PHYSICAL_BITS = 52
"""No architecture here has physical addresses beyond 52 bits."""


@dataclass(frozen=True)
class Area:
    """One vmalloc allocation, as ``/proc/vmallocinfo`` shows it.

    Attributes
    ----------
    start, end : int
        Virtual addresses; `end` is exclusive and includes the guard page.
    size_bytes : int
        With the guard page.
    caller : str
        Symbol of the allocating function, without offset; "" where unknown.
    kind : str
        vmalloc, vmap, ioremap, user, dma-coherent; "" where the kernel names none (lazily freed areas).
    leaf : str
        Leaf size of the recorded page tables: base, PMD; "" where nothing was mapped or nothing is known.
    is_stack : bool
        A kernel or interrupt stack.
    at_begin : bool
        It existed when the recording began.
    module : str
        Module of the caller, or "".
    pages : int
        Base pages of memory behind it; 0 where the kernel counts none (ioremap).
    nodes : tuple of (int, int)
        (NUMA node, base pages on it).
    """

    start: int
    end: int
    size_bytes: int
    caller: str = ""
    kind: str = "vmalloc"
    leaf: str = ""
    is_stack: bool = False
    at_begin: bool = True
    module: str = ""
    pages: int = 0
    nodes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Layout:
    """What existed and how it was mapped.

    Attributes
    ----------
    geometry : Geometry
    areas : tuple of Area
        Ascending by start. Areas may overlap only if one of them came after the beginning.
    runs : ndarray of LEAF_RUN
        Leaf entries of the kernel's page tables at the beginning; ascending, disjoint.
    runs_end : ndarray of LEAF_RUN
        The same at the end, for what was mapped later.
    has_tables : bool
        Page tables were recorded. If not, an area's leaf size is that of `Area.leaf`.
    notes : tuple of str
        What was assumed on the way, for people.
    """

    geometry: Geometry
    areas: tuple[Area, ...]
    runs: NDArray[np.void]
    runs_end: NDArray[np.void]
    has_tables: bool = True
    notes: tuple[str, ...] = ()

    def payload_bytes(self, area: Area) -> int:
        """Size of an area without its guard page (one base page, see the reference's section 3.5).

        Areas in the lower half are user memory, which has none.
        """
        guard = 1 << self.geometry.base_shift if area.start >= 1 << 63 else 0
        return max(area.size_bytes - guard, 0)

    def in_vmalloc_space(self, area: Area) -> bool:
        """Whether the area lies in the vmalloc space (modules and BPF programs may lie elsewhere)."""
        return self.geometry.vmalloc_start <= area.start < self.geometry.vmalloc_end


def no_runs() -> NDArray[np.void]:
    """An empty table of leaf runs."""
    return np.zeros(0, LEAF_RUN)


def caller_symbol(caller: str) -> str:
    """``alloc_large_system_hash+0x197/0x27c`` -> ``alloc_large_system_hash``."""
    return caller.split("+0x", 1)[0]


def check_areas(areas: list[Area], geometry: Geometry, where: object) -> tuple[Area, ...]:
    """Sort areas, and refuse those that cannot have been.

    Raises
    ------
    BadInput
        An area is empty, not page-aligned, or as a contemporary of another overlaps it.
    """
    page = 1 << geometry.base_shift
    for number, area in enumerate(areas):
        place = f"{where}: area {number} ({area.start:#x})"
        if not 0 <= area.start < area.end <= 1 << 64:
            raise BadInput(place, f"end {area.end:#x} is not above start", "record the layout again")
        if area.start % page or area.end % page:
            raise BadInput(place, f"not aligned to the base page of {page} bytes", "check the geometry")
        if not 0 < area.size_bytes <= area.end - area.start:
            raise BadInput(
                place, f"bytes {area.size_bytes} does not fit its addresses", "record the layout again"
            )
    ordered = tuple(sorted(areas, key=lambda area: (area.start, area.end)))
    for first in (True, False):
        contemporaries = [area for area in ordered if area.at_begin is first]
        for low, high in itertools.pairwise(contemporaries):
            if high.start < low.end:
                raise BadInput(
                    where,
                    f"areas {low.start:#x}-{low.end:#x} and {high.start:#x}-{high.end:#x} overlap",
                    "areas of one moment are disjoint; record the layout again",
                )
    return ordered


def check_runs(runs: NDArray[np.void], geometry: Geometry, where: object) -> NDArray[np.void]:
    """Sort leaf runs, and refuse those that no page table can hold.

    Raises
    ------
    BadInput
        A leaf size that the geometry lacks, misaligned or wrapping addresses, or overlapping runs.
    """
    runs = runs[np.argsort(runs["va"])]
    shift = runs["shift"].astype(np.uint64)
    page, frame = runs["va"] >> np.uint64(12), runs["pa"] >> np.uint64(12)

    def refuse(bad: NDArray[np.bool_], what: str, mend: str = "record the page tables again") -> None:
        if bad.any():
            first = int(np.argmax(bad))
            raise BadInput(f"{where}: run at {int(runs['va'][first]):#x}", what, mend)

    sizes = [leaf.shift for leaf in geometry.leaves]
    refuse(~np.isin(runs["shift"], sizes), f"shift is none of {sizes}, the leaf sizes of {geometry.name}")
    refuse(runs["count"] == 0, "count is 0")
    mask = (np.uint64(1) << shift) - np.uint64(1)
    known = runs["pa"] != UNKNOWN_FRAME
    refuse(runs["va"] & mask != 0, "va is not aligned to the leaf size")
    refuse(known & (runs["pa"] & mask != 0), "pa is not aligned to the leaf size")
    pages = runs["count"].astype(np.uint64) << (shift - np.uint64(12))
    refuse(page + pages > 1 << 52, "the run ends above the highest address")
    refuse(known & (frame + pages > 1 << (PHYSICAL_BITS - 12)), f"pa lies above {PHYSICAL_BITS} bits")
    refuse(page[:-1] + pages[:-1] > page[1:], "overlaps the next")
    return runs


class _Recorded(msgspec.Struct):
    """One object of ``regions.json``."""

    start: str
    end: str
    bytes: int
    caller: str | None
    kind: str | None
    mapping: str
    is_stack: bool
    at_begin: bool = True
    module: str | None = None
    pages: int | None = None
    nodes: dict[str, int] = {}


_LEAF_OF = {"4K": "base", "2M": "PMD", "none": ""}


def _address(text: str, place: str) -> int:
    with contextlib.suppress(ValueError):
        if 2 < len(text) <= 18 and text.startswith("0x"):
            return int(text, 16)
    raise BadInput(place, f"{text[:40]!r} is no address", 'write it as "0x" and up to 16 hex digits')


def _area(record: _Recorded, place: str) -> Area:
    if record.mapping not in _LEAF_OF:
        known = ", ".join(_LEAF_OF)
        raise BadInput(f"{place}.mapping", f"{record.mapping[:40]!r} is unknown", f"one of {known}")
    if (record.pages or 0) < 0:
        raise BadInput(f"{place}.pages", f"{record.pages} is negative", "record the layout again")
    for node, pages in record.nodes.items():
        if not re.fullmatch(r"N[0-9]{1,5}", node) or pages < 0:
            raise BadInput(f"{place}.nodes", f"{node[:40]!r}: {pages} is no node", 'write "N0": pages')
    return Area(
        start=_address(record.start, f"{place}.start"),
        end=_address(record.end, f"{place}.end"),
        size_bytes=record.bytes,
        caller=caller_symbol(record.caller or ""),
        kind=record.kind or "",
        leaf=_LEAF_OF[record.mapping],
        is_stack=record.is_stack,
        at_begin=record.at_begin,
        module=record.module or "",
        pages=record.pages or 0,
        nodes=tuple((int(node[1:]), pages) for node, pages in record.nodes.items()),
    )


def read_regions(path: Path) -> list[Area]:
    """Areas of a ``regions.json``, in the order of the file.

    Raises
    ------
    BadInput
        The file cannot be read, or an object lacks a key or has one of the wrong kind.
    """
    try:
        records = msgspec.json.decode(path.read_bytes(), type=list[_Recorded])
    except OSError as error:
        raise BadInput(path, error.strerror or "cannot be read", "check the file") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        mend = "its format stands in docs/mappings.md"
        raise BadInput(path, str(error) or "nested too deeply", mend) from None
    return [_area(record, f"{path}: $[{number}]") for number, record in enumerate(records)]


def read_runs(path: Path, geometry: Geometry) -> NDArray[np.void]:
    """Leaf runs of a ``leaf.npy``.

    Raises
    ------
    BadInput
        The file is no such table, or holds what no page table can.
    """
    try:
        runs = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise BadInput(path, error.strerror or str(error), "check the file") from None
    except (
        Exception
    ) as error:  # numpy's header parser lets many kinds through, tokenize.TokenError among them
        raise BadInput(path, f"not a .npy file: {error}", "record the page tables again") from None
    if not isinstance(runs, np.ndarray) or runs.ndim != 1 or runs.dtype != LEAF_RUN:
        columns = ", ".join(LEAF_RUN.names or ())
        raise BadInput(path, "not a one-dimensional table of leaf runs", f"its columns are {columns}")
    return check_runs(runs, geometry, path)


def read_layout(folder: Path, geometry: Geometry = GEOMETRIES["x86-64"]) -> Layout | None:
    """The layout that lies in a trace folder.

    Parameters
    ----------
    folder : Path
    geometry : Geometry
        Of the recorded kernel; trace folders of this format are x86-64 with four levels.

    Returns
    -------
    Layout or None
        None where the folder has none of ``regions.json``, ``leaf.npy``, ``leaf_end.npy``.

    Raises
    ------
    BadInput
        A file is there but cannot be used.
    """
    regions, leaf, leaf_end = folder / "regions.json", folder / "leaf.npy", folder / "leaf_end.npy"
    if not any(path.exists() for path in (regions, leaf, leaf_end)):
        return None
    return Layout(
        geometry,
        check_areas(read_regions(regions) if regions.exists() else [], geometry, regions),
        read_runs(leaf, geometry) if leaf.exists() else no_runs(),
        read_runs(leaf_end, geometry) if leaf_end.exists() else no_runs(),
    )
