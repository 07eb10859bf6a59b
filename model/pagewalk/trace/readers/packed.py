"""The bytes of a file, decompressed where it is compressed, a block at a time.

What a file is, its first bytes say. However little of it there is, no more than a few blocks are held in
memory, and a file that swells beyond all measure is refused.
"""

import bz2
import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import zstandard

from pagewalk.errors import BadInput
from pagewalk.trace.encode import Raw, RawChunk
from pagewalk.trace.readers.pipe import is_pipe, opened
from pagewalk.trace.store.columns import WINDOW_BYTES

BLOCK = 1 << 20
"""Bytes in a block."""

HEAD_BYTES = 1 << 16
"""How much of the content is shown to readers, for them to recognise their format."""

XZ_MEMORY = 1 << 28
"""What an xz decoder may take; ``xz -9`` needs 65 MiB (xz(1))."""

SWELL, SWELL_FROM = 40_000, 1 << 30
"""From 1 GiB of content on, it may be no more than 40,000 times as large as the file: just above what zstd
can reach (128 KiB from a block of 4 bytes, RFC 8878), and out of reach for gzip and xz. Ours."""


class _Decoder(Protocol):
    """What bz2, lzma and (through `_Inflate`) zlib have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Inflate:
    """One member of a gzip file."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail or data, max_length)


def _xz() -> _Decoder:
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY)


class _Packing(NamedTuple):
    magic: bytes
    name: str
    decoder: Callable[[], _Decoder] | None
    """None where another function reads it, or nothing can."""


PACKINGS = (
    _Packing(b"\x1f\x8b", "gzip", _Inflate),
    _Packing(b"\xfd7zXZ\x00", "xz", _xz),
    _Packing(b"BZh", "bzip2", bz2.BZ2Decompressor),
    _Packing(b"\x28\xb5\x2f\xfd", "zstd", None),
    _Packing(b"PK\x03\x04", "zip", None),
    _Packing(b"\x04\x22\x4d\x18", "lz4", None),
    _Packing(b"\xff\x06\x00\x00sNaPpY", "snappy", None),
)


def blocks(path: Path) -> Iterator[bytes]:
    """Yield the content in blocks of at most `BLOCK` bytes, none of them empty.

    Raises
    ------
    BadInput
        The file cannot be read, is damaged, packed in a way that is not read here, or swells beyond measure.
    """
    done = 0
    state = _state(path)
    total = None if state in _digests or state in _unasked else hashlib.sha256()
    try:
        file, size = opened(path)
        with file:
            for block in _unpacked(path, file):
                done += len(block)
                if done > max(SWELL_FROM, SWELL * size()):
                    raise BadInput(
                        f"{path}: byte {done} of the content",
                        f"more than {SWELL} times as large as the file",
                        "if you trust it, decompress it and give that file",
                    )
                if total is not None:
                    total.update(block)
                yield block
        if total is not None:
            _digests[state] = total.hexdigest()
    except OSError as error:
        raise BadInput(path, error.strerror or "cannot be read", "check the file") from None
    except MemoryError:
        raise BadInput(
            path, "needs too much memory to decompress", "decompress it and give that file"
        ) from None
    except (
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zstandard.ZstdError,
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        RuntimeError,
    ) as error:
        raise BadInput(
            f"{path}: byte {done} of the content", f"damaged data ({error})", "copy or record it again"
        ) from None


def head(path: Path) -> bytes:
    """The first `HEAD_BYTES` bytes of the content, fewer if there are no more."""
    found = b""
    for block in blocks(path):
        found += block[: HEAD_BYTES - len(found)]
        if len(found) == HEAD_BYTES:
            break
    return found


def sha256(path: Path) -> str:
    """SHA-256 (hex) of the content, decompressed; the first whole reading has worked it out."""
    if _state(path) not in _digests:
        _unasked.discard(_state(path))
        for _ in blocks(path):
            pass
    return _digests[_state(path)]


def without_digest(path: Path) -> None:
    """Let readings of a file work out no SHA-256 on the way: it costs more than many formats' records do."""
    _unasked.add(_state(path))


_digests: dict[tuple[object, ...], str] = {}
_unasked: set[tuple[object, ...]] = set()


def _state(path: Path) -> tuple[object, ...]:
    """What a file's content can be known by, until it changes."""
    if is_pipe(path) or not path.exists():
        return (path,)
    status = path.stat()
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def raw(path: Path, chunks: Callable[[int], Iterator[RawChunk]], *columns: str) -> Raw:
    """Describe a file by the accesses that `chunks` reads from it."""
    return Raw(path.name.split(".")[0], chunks, frozenset(columns), lambda: sha256(path), path)


def _unpacked(path: Path, file: BinaryIO) -> Iterator[bytes]:
    start = file.read(16)
    file.seek(0)
    packing = next((each for each in PACKINGS if start.startswith(each.magic)), None)
    if packing is None:
        return iter(lambda: file.read(BLOCK), b"")
    if packing.decoder is not None:
        return _decoded(file, packing.decoder)
    if packing.name == "zstd":
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
        stream = reader.stream_reader(file, read_across_frames=True, closefd=False)
        return iter(lambda: stream.read(BLOCK), b"")
    if packing.name == "zip" and is_pipe(path):
        raise BadInput(path, "a zip archive does not come through a pipe", "save it to a file")
    if packing.name == "zip":
        return _members(path, file)
    raise BadInput(path, f"{packing.name} is not read here", "decompress it and give that file")


def _decoded(file: BinaryIO, start: Callable[[], _Decoder]) -> Iterator[bytes]:
    """One compressed stream after the other, as gzip, xz and bzip2 files may have."""
    decoder, data = start(), b""
    while True:
        if decoder.eof:
            data = decoder.unused_data or file.read(BLOCK)
            if not data.strip(b"\x00"):
                return
            decoder = start()
        elif decoder.needs_input and not data:
            data = file.read(BLOCK)
            if not data:
                raise EOFError("ends before its end mark")
        block = decoder.decompress(data, BLOCK)
        data = b""
        if block:
            yield block


def _members(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The files of a zip archive, one after the other in the order of their names' numbers.

    DynamoRIO cuts a trace into members named chunk.0000, chunk.0001, ... (its documentation, "Trace Format").
    """
    with zipfile.ZipFile(file) as archive:
        for member in sorted(archive.infolist(), key=lambda each: each.filename):
            if member.flag_bits & 1:
                raise BadInput(f"{path}: {member.filename!r}", "is encrypted", "decrypt it")
            with archive.open(member) as content:
                while block := content.read(BLOCK):
                    yield block
