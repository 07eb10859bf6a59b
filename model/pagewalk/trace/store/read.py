"""The trace folder: reading. Its files are described in docs/traces.md.

Nothing in a folder is trusted: types, lengths and ranges are checked, the table of pages when it is
opened, the records as they are read.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.store import columns
from pagewalk.trace.store.columns import Array, Column
from pagewalk.trace.trace import EVENT, RUNNING, SWITCH, Chunk, Trace

SCHEMA = "pagewalk.trace/1"
"""What ``meta.json`` of our own folders says under "schema"; recorders' folders say "format": 1."""

OPTIONAL = {"offset": ("<u2",), "flags": ("|u1",), "cpu": ("|u1",)}
"""The optional columns and their types."""

BESIDE = ("regions.json", "leaf.npy", "leaf_end.npy", "meminfo.txt", "buddyinfo.txt")
"""Files of a layout, which this package's linux floor reads; a trace only carries them along."""

META_BYTES = 16 << 20
"""A longer meta.json is refused."""


def open_folder(path: Path) -> Trace:
    """Open a trace folder.

    Parameters
    ----------
    path : Path
        A folder with at least ``pages.npy`` and ``page.npy`` or ``page.npy.zst``.

    Returns
    -------
    Trace

    Raises
    ------
    BadInput
        If a file is missing, damaged, of the wrong type, or disagrees with another. What is wrong within the
        records themselves is raised while they are read.
    """
    meta = _meta(path)
    pages_file = columns.find(path, "pages.npy")
    if pages_file is None:
        raise BadInput(path, "no pages.npy in this folder", "give a trace folder (docs/traces.md)")
    present = {"page": _column(path, "page", ("<u2", "<u4"))}
    present |= {name: _column(path, name, types) for name, types in OPTIONAL.items()}
    parts = {name: part for name, part in present.items() if part is not None}
    if "page" not in parts:
        raise BadInput(
            path, "no page.npy or page.npy.zst in this folder", "give a trace folder (docs/traces.md)"
        )
    _check_complete(path, meta)
    accesses = parts["page"].count
    for part in parts.values():
        if part.count != accesses:
            raise BadInput(
                part.path,
                f"{part.count} records, but {parts['page'].path.name} has {accesses}",
                "copy or record the trace again",
            )
    page_shift = _whole_number(path, meta, "page_shift", 12, range(12, 22))
    if _whole_number(path, meta, "records", accesses) != accesses:
        raise BadInput(
            path / "meta.json",
            f'"records" is {meta["records"]}, but the columns have {accesses}',
            "copy it again",
        )
    pages = columns.whole(columns.column(pages_file, ("<u8",)))
    spaces_file = columns.find(path, "spaces.npy")
    spaces = None if spaces_file is None else columns.whole(columns.column(spaces_file, ("<u2",)))
    _check_pages(pages_file, pages, spaces, page_shift)
    cpus = 1
    if "cpu" in parts:
        found = 1 + max((int(part.max()) for part in columns.records(parts["cpu"], 1 << 20)), default=0)
        cpus = _whole_number(path, meta, "cpus", found, range(found, 257))
    return Trace(
        name=path.resolve().name,
        pages=pages,
        accesses=accesses,
        read=lambda wanted, size: _chunks(parts, len(pages), page_shift, wanted, size),
        columns=frozenset(parts) - {"page"},
        spaces=spaces,
        events=_events(path, accesses, cpus),
        page_shift=page_shift,
        cpus=cpus,
        origin=path,
        digest=lambda: digest(path),
        about=meta["recorder"] if isinstance(meta.get("recorder"), dict) else meta,
    )


def column_files(path: Path) -> list[Path]:
    """The files of a trace folder that carry content, in the order in which a digest counts them."""
    names = ["pages", "page", *OPTIONAL, "events", "spaces"]
    found = [columns.find(path, f"{name}.npy", f"{name}.npy.zst") for name in names]
    found += [columns.find(path, name) for name in BESIDE]
    return [each for each in found if each is not None]


def digest(path: Path) -> str:
    """SHA-256 (hex) of a folder's content, however it is compressed.

    It is that of a list of lines ``sha256  name`` as ``sha256sum`` prints them for the decompressed files.

    Raises
    ------
    BadInput
        If a file is not what ``meta.json`` says it was when it was written.
    """
    meta = _meta(path)
    noted = meta.get("sha256")
    total = hashlib.sha256(b"page_shift %d\n" % _whole_number(path, meta, "page_shift", 12))
    for file in column_files(path):
        name, found = file.name.removesuffix(".zst"), {file.name: columns.stored_sha256(file)}
        if name not in found:
            found[name] = columns.sha256(file)
        if isinstance(noted, dict) and any(noted.get(key, value) != value for key, value in found.items()):
            raise BadInput(
                file, "its content is not what meta.json noted (sha256)", "copy or convert it again"
            )
        total.update(f"{found[name]}  {name}\n".encode())
    return total.hexdigest()


def _meta(path: Path) -> dict[str, Any]:
    """What the recorder wrote about the trace; empty if it wrote nothing."""
    file = columns.find(path, "meta.json")
    if file is None:
        return {}
    if columns.regular_file(file) > META_BYTES:
        raise BadInput(file, f"longer than {META_BYTES} bytes", "it should hold a few facts only")
    try:
        meta = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(file, f"no JSON ({error})", "copy it again") from None
    if not isinstance(meta, dict):
        raise BadInput(file, "no JSON object", "copy it again")
    if meta.get("schema", SCHEMA) != SCHEMA or meta.get("format", 1) != 1:
        known = f'"schema": "{SCHEMA}" and "format": 1'
        raise BadInput(file, "of a kind that this version does not read", f"known are {known}")
    return meta


def _whole_number(
    path: Path, meta: dict[str, Any], key: str, otherwise: int, allowed: range = range(1 << 63)
) -> int:
    value = meta.get(key, otherwise)
    if type(value) is not int or value not in allowed:
        wanted = f"a whole number from {allowed.start} to {allowed.stop - 1}"
        raise BadInput(path / "meta.json", f'"{key}" is {value!r}', f"it must be {wanted}")
    return value


def _check_complete(path: Path, meta: dict[str, Any]) -> None:
    """Every file of ours that ``meta.json`` has a sum of is there, compressed or not."""
    noted = meta.get("sha256")
    present = {file.name.removesuffix(".zst") for file in column_files(path)}
    for name in noted if isinstance(noted, dict) else ():
        if name.removesuffix(".zst") not in present:
            raise BadInput(
                path / "meta.json", f"notes a file {name[:60]!r} that is not here", "copy the trace again"
            )


def _column(path: Path, name: str, types: tuple[str, ...]) -> Column | None:
    file = columns.find(path, f"{name}.npy", f"{name}.npy.zst")
    return None if file is None else columns.column(file, types)


def _check_pages(
    file: Path, pages: NDArray[np.uint64], spaces: NDArray[np.uint16] | None, page_shift: int
) -> None:
    """Every distinct page stands once, is a page number, and has a space if any has."""
    if spaces is not None and len(spaces) != len(pages):
        raise BadInput(
            file.with_name("spaces.npy"),
            f"{len(spaces)} entries, but pages.npy has {len(pages)}",
            "copy it again",
        )
    if len(pages) > 1 << 31:
        raise BadInput(file, f"{len(pages)} distinct pages", "at most 2**31 can be told apart; cut the trace")
    wrong = np.flatnonzero(pages >> np.uint64(64 - page_shift))
    if len(wrong):
        raise BadInput(
            f"{file}: entry {wrong[0]}",
            f"{int(pages[wrong[0]]):#x} is no page number",
            f"store address >> {page_shift}",
        )
    if np.all(pages[1:] > pages[:-1]):
        return
    order = np.argsort(pages, kind="stable") if spaces is None else np.lexsort((spaces, pages))
    same = pages[order[1:]] == pages[order[:-1]]
    if spaces is not None:
        same &= spaces[order[1:]] == spaces[order[:-1]]
    if same.any():
        twice = order[1:][same][0]
        raise BadInput(
            f"{file}: entry {twice}", f"page {int(pages[twice]):#x} stands there twice", "write it again"
        )


def _events(path: Path, accesses: int, cpus: int) -> NDArray[np.void] | None:
    file = columns.find(path, "events.npy")
    if file is None:
        return None
    source = columns.column(file, (EVENT,))
    events = columns.whole(source)
    position = events["position"]
    faults = {
        "lies after the last record": position > accesses,
        "lies before the event above it": np.append(False, position[1:] < position[:-1])[: len(events)],
        "is of an unknown kind": events["kind"] > RUNNING,
        f"is on none of the CPUs 0 to {cpus - 1}": events["cpu"] >= cpus,
        "ends before it starts": (events["end"] < events["start"])
        & ~np.isin(events["kind"], (SWITCH, RUNNING)),
    }
    for fault, where in faults.items():
        if where.any():
            raise BadInput(f"{file}: entry {np.argmax(where)}", f"the event {fault}", "write it again")
    return events


def _chunks(
    parts: dict[str, Column], distinct: int, page_shift: int, wanted: frozenset[str], size: int
) -> Iterator[Chunk]:
    limits = {"page": distinct, "offset": 1 << page_shift}

    def checked(name: str, array: Array, start: int) -> Array:
        if name in limits and (highest := int(array.max())) >= limits[name]:
            at = start + int(np.argmax(array >= limits[name]))
            what = "entries in pages.npy" if name == "page" else "bytes in a page"
            raise BadInput(
                f"{parts[name].path}: record {at}",
                f"{highest} is out of range, there are {limits[name]} {what}",
                "copy or record it again",
            )
        return array.astype(np.uint32, copy=False) if name == "page" else array

    asked = {name: parts[name] for name in ("page", *sorted(wanted))}
    for start, arrays in columns.together(asked, checked, size):
        yield Chunk(start, **arrays)
