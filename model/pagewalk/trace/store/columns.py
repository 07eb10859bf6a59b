"""One column on disk: an ``.npy`` file, plain or zstd, read a chunk at a time and trusted in nothing."""

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import zstandard
from numpy.typing import DTypeLike, NDArray

from pagewalk.errors import BadInput

Array = NDArray[Any]

WINDOW_BYTES = 1 << 27
"""The largest zstd window that we read, that of ``zstd --long=27``; a reader holds that much memory."""
HEADER_BYTES = 10_000
"""The longest ``.npy`` header that we read; numpy's own limit."""


@dataclass(frozen=True)
class Column:
    """Where a column's records are.

    Attributes
    ----------
    path : Path
    dtype : numpy.dtype
    count : int
        Number of records, from the header.
    header_bytes : int
        Where they begin in the (decompressed) file.
    """

    path: Path
    dtype: np.dtype[Any]
    count: int
    header_bytes: int


def find(folder: Path, *names: str) -> Path | None:
    """The one file in `folder` that bears one of the names; None if there is none.

    Raises
    ------
    BadInput
        If there are two, or it is no regular file, or it is a link that leads out of the folder.
    """
    found = [folder / name for name in names if os.path.lexists(folder / name)]
    if not found:
        return None
    if len(found) > 1:
        raise BadInput(found[0], f"stands beside {found[1].name}", "keep one of the two")
    path = found[0]
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise BadInput(path, "is a link out of the trace folder", "put a copy of the file there")
    regular_file(path)
    return path


def regular_file(path: Path) -> int:
    """Size in bytes of a file that is no pipe, device or folder."""
    try:
        status = path.stat()
    except OSError as error:
        raise BadInput(path, error.strerror or "cannot be read", "check the name") from None
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(path, "is not a regular file", "give a file")
    return status.st_size


def column(path: Path, dtypes: Sequence[DTypeLike]) -> Column:
    """Read the header of a column of one of the given types.

    Raises
    ------
    BadInput
        If it is no ``.npy`` file, not one-dimensional, of another type, or (plain files) of another length
        than its header says.
    """
    size = regular_file(path)
    with _content(path) as content:
        head = _read_exactly(content, 8, path)
        if head[:6] != b"\x93NUMPY" or head[6:] not in (b"\x01\x00", b"\x02\x00"):
            raise BadInput(path, "byte 0: no .npy header", "give a file that numpy.save wrote")
        length_bytes = _read_exactly(content, 2 * head[6], path)
        length = int.from_bytes(length_bytes, "little")
        if length > HEADER_BYTES:
            raise BadInput(path, f"byte 8: a header of {length} bytes", "the file is damaged; write it again")
        text = _read_exactly(content, length, path)
    shape, dtype = _parse_header(path, head[6], length_bytes + text)
    wanted = [np.dtype(name) for name in dtypes]
    if dtype.newbyteorder("<") in wanted and dtype not in wanted:
        raise BadInput(path, f"byte order of {dtype.str}", f"convert it: array.astype('{wanted[0].str}')")
    if dtype not in wanted:
        names = " or ".join(each.name for each in wanted)
        raise BadInput(path, f"type is {dtype}, not {names}", f"convert it: array.astype('{wanted[0].name}')")
    if len(shape) != 1:
        raise BadInput(path, f"shape {shape} is not one-dimensional", "save array.ravel()")
    header_bytes = len(head) + len(length_bytes) + length
    expected = header_bytes + shape[0] * dtype.itemsize
    if path.suffix != ".zst" and size != expected:
        raise BadInput(
            path,
            f"byte {min(size, expected)}: its header says {shape[0]} records in {expected} bytes, not {size}",
            "copy it again",
        )
    return Column(path, dtype, shape[0], header_bytes)


def records(source: Column, size: int) -> Iterator[Array]:
    """Yield the records, `size` at a time.

    Raises
    ------
    BadInput
        If the content is damaged, or ends before or after the number of records in its header.
    """
    with _content(source.path) as content:
        _read_exactly(content, source.header_bytes, source.path)
        for start in range(0, source.count, size):
            part = np.empty(min(size, source.count - start), source.dtype)
            filled = _fill(content, part.view("u1").data, f"{source.path}: from record {start}")
            if filled < part.nbytes:
                raise BadInput(
                    f"{source.path}: record {start + filled // source.dtype.itemsize}",
                    f"the content ends here; its header says {source.count} records",
                    "copy or record it again",
                )
            yield part
        if _fill(content, memoryview(bytearray(1)), f"{source.path}: record {source.count}"):
            raise BadInput(
                f"{source.path}: record {source.count}",
                "the content goes on after the last record of its header",
                "copy or record it again",
            )


def whole(source: Column) -> Array:
    """All records of a plain column."""
    try:
        return next(records(source, max(source.count, 1)), np.empty(0, source.dtype))
    except MemoryError:
        raise BadInput(
            source.path, f"{source.count} records do not fit into memory", "cut the trace"
        ) from None


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's decompressed bytes."""
    total, buffer = hashlib.sha256(), bytearray(1 << 20)
    with _content(path) as content:
        while filled := _fill(content, memoryview(buffer), path):
            total.update(memoryview(buffer)[:filled])
    return total.hexdigest()


def stored_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes as they lie on disk, as ``sha256sum`` prints it."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(path, error.strerror or "cannot be read", "copy it again") from None


def together(
    parts: dict[str, Column], finish: Callable[[str, Array, int], Array], size: int
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield (start, arrays by name) of columns of equal length; each is read ahead in a thread of its own.

    ``finish(name, array, start)`` checks or converts each array, in that thread.
    """

    def finished(name: str) -> Generator[Array]:
        start = 0
        for part in records(parts[name], size):
            yield finish(name, part, start)
            start += len(part)

    with ExitStack() as stack:
        streams = {name: stack.enter_context(closing(finished(name))) for name in parts}
        pool = stack.enter_context(ThreadPoolExecutor(len(streams)))

        def ahead() -> list[Future[Array | None]]:
            return [pool.submit(next, stream, None) for stream in streams.values()]

        start, coming = 0, ahead()
        while True:
            arrays = [future.result() for future in coming]
            coming = ahead()
            present = {name: array for name, array in zip(streams, arrays, strict=True) if array is not None}
            if not present:
                return
            yield start, present
            start += len(next(iter(present.values())))


def _content(path: Path) -> BinaryIO:
    """The bytes of a file, decompressed."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(
            path, error.strerror or "cannot be read", "check the name and its permissions"
        ) from None
    if path.suffix != ".zst":
        return file
    reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
    return reader.stream_reader(cast(BinaryIO, _Ended(file)), read_across_frames=True, closefd=True)


class _Ended:
    """A compressed file with a frame behind it that decoders skip.

    A decoder does not tell a stream whose last bytes are missing (those of the checksum, say) from one that
    is complete. With this behind it, it takes the frame's bytes for the missing ones, and runs into an
    error at the latest at the next frame: longer than any block, it is never used up, and 0xff begins none.
    """

    FRAME = bytes.fromhex("502a4d18 00000400") + b"\xff" * (1 << 18)

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end = file, io.BytesIO(self.FRAME)

    def read(self, size: int) -> bytes:
        return self._file.read(size) or self._end.read(size)

    def close(self) -> None:
        self._file.close()


def _fill(content: BinaryIO, view: memoryview, place: object) -> int:
    """Read into `view` until it is full or the content ends; the number of bytes read."""
    filled = 0
    while filled < len(view):
        try:
            got = content.readinto(view[filled:])  # type: ignore[attr-defined]
        except zstandard.ZstdError as error:
            raise BadInput(
                place, f"damaged or unknown zstd data ({error})", "copy or record it again"
            ) from None
        except OSError as error:
            raise BadInput(place, error.strerror or "cannot be read", "copy it again") from None
        if not got:
            break
        filled += got
    return filled


def _read_exactly(content: BinaryIO, size: int, path: Path) -> bytes:
    buffer = bytearray(size)
    if (filled := _fill(content, memoryview(buffer), path)) < size:
        raise BadInput(path, f"byte {filled}: ends within its header", "copy or record it again")
    return bytes(buffer)


def _parse_header(path: Path, version: int, text: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    parse = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings(action="error"):
            shape, _, dtype = parse(io.BytesIO(text), max_header_size=HEADER_BYTES)
    except Exception:  # whatever numpy's parser stumbles over: a header is data that anyone may have written
        raise BadInput(
            path, "byte 10: the .npy header cannot be understood", "write it again with numpy.save"
        ) from None
    if any(length < 0 for length in shape) or dtype.hasobject:
        raise BadInput(path, f"byte 10: {dtype} of shape {shape}", "write it again with numpy.save")
    return shape, dtype
