"""The trace folder: writing. A folder appears whole under its name, or not at all."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from pagewalk import __version__
from pagewalk.errors import BadInput
from pagewalk.trace.encode import PAGE_SHIFT, Dictionary, Events, RawChunk, gathered, offsets
from pagewalk.trace.store import columns
from pagewalk.trace.store.columns import Array
from pagewalk.trace.store.read import BESIDE, OPTIONAL, SCHEMA, column_files
from pagewalk.trace.trace import Chunk, Trace

NARROW = 1 << 16
"""Up to so many distinct pages the page column has two bytes a record, else four."""

LEVEL, WINDOW_LOG, LONG_LOG, SHORT_LOG = 3, 25, 18, 15
"""zstd level; log2 of its window in bytes, of the entries in its tables of long and short matches. Ours, see
docs/decisions/0002-trace-format.md."""

FEW = 1 << 14
"""Fewer records than this are compressed in less time than threads are woken in. Ours."""

HEADER_BYTES = 128
"""Length of the ``.npy`` headers that we write."""


class ColumnWriter:
    """An ``.npy`` or ``.npy.zst`` file that grows; its length is entered into its header at the end."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.path, self.dtype, self.count = path, np.dtype(dtype), 0
        self._file = path.open("xb")
        self._file.write(self._header())
        self._compressor = None
        if path.suffix == ".zst":
            settings = zstandard.ZstdCompressionParameters.from_level(
                LEVEL, window_log=WINDOW_LOG, hash_log=LONG_LOG, chain_log=SHORT_LOG, write_checksum=True
            )
            self._compressor = zstandard.ZstdCompressor(compression_params=settings).compressobj()

    def write(self, records: Array) -> None:
        """Append records; they are converted to the column's type."""
        part = np.ascontiguousarray(records, self.dtype)
        self._file.write(part.data if self._compressor is None else self._compressor.compress(part.data))
        self.count += len(part)

    def close(self) -> None:
        """Finish the file."""
        if self._file.closed:
            return
        if self._compressor is not None:
            self._file.write(self._compressor.flush())
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()

    def widened(self, dtype: str) -> "ColumnWriter":
        """Finish the file, and go on in a copy that has a wider type."""
        self.close()
        wider = ColumnWriter(self.path.with_name(f".wider.{self.path.name}"), dtype)
        for part in columns.records(columns.column(self.path, (self.dtype,)), 1 << 20):
            wider.write(part)
        wider.path = wider.path.replace(self.path)
        return wider

    def _header(self) -> bytes:
        """Of fixed length, so that it can be written again when the number of records is known."""
        text = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': ({self.count},), }}"
        header = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
        header += text.ljust(HEADER_BYTES - 11).encode() + b"\n"
        return header if self.path.suffix != ".zst" else _raw_frame(header)


def _raw_frame(content: bytes) -> bytes:
    """A zstd frame of one uncompressed block of at most 255 bytes (RFC 8878, section 3.1.1)."""
    block_header = (len(content) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes((0x20, len(content))) + block_header + content


def write_trace(
    trace: Trace,
    target: Path,
    *,
    compress: bool = True,
    source: str = "",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a trace as a new trace folder, with the layout that lies beside the original.

    Parameters
    ----------
    trace : Trace
    target : Path
        Must not exist.
    compress : bool
        Columns as ``.npy.zst``; else as ``.npy``, which other programs can map into memory.
    source : str
        Where the trace came from, for readers of ``meta.json``.
    progress : callable, optional
        Called with the number of records written since the last call.

    Raises
    ------
    BadInput
        If `target` exists or cannot be written, or the trace turns out damaged. Nothing is left then.
    """
    types = {"page": "<u2" if len(trace.pages) <= NARROW else "<u4"}
    types |= {name: OPTIONAL[name][0] for name in sorted(trace.columns)}
    with _new_folder(target) as folder:
        ending = ".npy.zst" if compress else ".npy"
        with ExitStack() as stack:
            writers = {name: ColumnWriter(folder / (name + ending), type_) for name, type_ in types.items()}
            for writer in writers.values():
                stack.callback(writer.close)
            pool = stack.enter_context(ThreadPoolExecutor(len(writers)))
            for chunk in trace.chunks(*trace.columns):
                _append(pool, writers, chunk)
                if progress is not None:
                    progress(len(chunk.page))
        tables = {"pages": trace.pages, "spaces": trace.spaces, "events": trace.events}
        _save_tables(folder, tables)
        if trace.origin is not None and trace.origin.is_dir():
            for name in BESIDE:
                if (beside := columns.find(trace.origin, name)) is not None:
                    shutil.copyfile(beside, folder / name)
        _write_meta(folder, trace.accesses, trace.page_shift, trace.cpus, source, trace.about)


def write_stream(
    chunks: Iterable[RawChunk],
    target: Path,
    *,
    source: str | Callable[[], str] = "",
    about: dict[str, object] | None = None,
    beside: Mapping[str, bytes] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write accesses that come only once, and whose number nobody knows yet, as a new trace folder.

    Parameters
    ----------
    chunks : iterable of RawChunk
        One at least; all with the same columns.
    target : Path
        Must not exist.
    source : str or callable
        Where the trace came from; called when the last access has come.
    about : dict, optional
        The recorder's words.
    beside : mapping of str to bytes, optional
        Files of a layout to put beside the columns; looked at when the last access has come.
    progress : callable, optional
        Called with the number of records written since the last call.

    Raises
    ------
    BadInput
        If `target` exists or cannot be written. Nothing is left then.
    """
    dictionary, cpus, records, events = Dictionary(), 1, 0, Events()
    with _new_folder(target) as folder:
        with ExitStack() as stack:
            writers: dict[str, ColumnWriter] = {}

            @stack.callback
            def close() -> None:
                for writer in writers.values():
                    writer.close()

            # Entered last: its threads are waited for before the files that they write to are closed.
            pool = stack.enter_context(ThreadPoolExecutor(len(OPTIONAL) + 1))
            for raw in gathered(chunks):
                page = dictionary.encode(raw.address, raw.space)
                events.add(raw.events, records)
                records += len(page)
                chunk = Chunk(0, page, offsets(raw.address), raw.flags, raw.cpu)
                for name in ("page", *OPTIONAL):
                    if name not in writers and getattr(chunk, name) is not None:
                        type_ = "<u2" if name == "page" else OPTIONAL[name][0]
                        writers[name] = ColumnWriter(folder / f"{name}.npy.zst", type_)
                if dictionary.count > NARROW and writers["page"].dtype.itemsize == 2:
                    writers["page"] = writers["page"].widened("<u4")
                _append(pool, writers, chunk)
                if progress is not None:
                    progress(len(page))
                if raw.cpu is not None:
                    cpus = max(cpus, 1 + int(raw.cpu.max(initial=0)))
        if not writers:
            raise BadInput(target, "there was no access at all", "record something that runs")
        tables = {"pages": dictionary.pages, "spaces": dictionary.spaces, "events": events.all}
        _save_tables(folder, tables)
        for name, content in (beside or {}).items():
            (folder / name).write_bytes(content)
        said = source if isinstance(source, str) else source()
        _write_meta(folder, records, PAGE_SHIFT, cpus, said, about)


def _save_tables(folder: Path, tables: Mapping[str, Array | None]) -> None:
    for name, table in tables.items():
        if table is not None:
            np.save(folder / f"{name}.npy", table)


def _append(pool: ThreadPoolExecutor, writers: dict[str, ColumnWriter], chunk: Chunk) -> None:
    """Compress the columns, side by side where there is enough to do."""
    if len(chunk.page) < FEW:
        for name, writer in writers.items():
            writer.write(getattr(chunk, name))
        return
    for done in [pool.submit(writer.write, getattr(chunk, name)) for name, writer in writers.items()]:
        done.result()


def _write_meta(
    folder: Path, records: int, page_shift: int, cpus: int, source: str, about: dict[str, Any] | None
) -> None:
    files = column_files(folder)
    meta = {
        "schema": SCHEMA,
        "records": records,
        "page_shift": page_shift,
        "cpus": cpus,
        "sha256": {file.name: columns.stored_sha256(file) for file in files},
        "made_by": {"pagewalk": __version__, "from": source},
        "recorder": about or {},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def new_target(target: Path) -> None:
    """Refuse a target that exists.

    Raises
    ------
    BadInput
    """
    if target.exists() or target.is_symlink():
        raise BadInput(target, "exists already", "name another, or remove it")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target, which gets the target's name if all goes well, and else disappears."""
    new_target(target)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        partial.mkdir()
        try:
            yield partial
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise BadInput(target, f"cannot be written: {error.strerror}", "name another folder") from None
