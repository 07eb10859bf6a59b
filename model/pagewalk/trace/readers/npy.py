"""A plain ``.npy`` (or ``.npy.zst``) of uint64 addresses: one load for each."""

from collections.abc import Iterator
from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.trace.encode import Raw, RawChunk
from pagewalk.trace.store import columns

MAGIC = b"\x93NUMPY"


def recognises(path: Path, head: bytes) -> bool:
    """By numpy's magic bytes, or by name where it is compressed."""
    return head.startswith(MAGIC) or path.name.endswith((".npy", ".npy.zst"))


def read(path: Path) -> Raw:
    """Open the file.

    Raises
    ------
    BadInput
        If it is no one-dimensional array of little-endian uint64, or empty.
    """
    source = columns.column(path, ("<u8",))
    if not source.count:
        raise BadInput(path, "an empty array", "give at least one address")

    def chunks(size: int) -> Iterator[RawChunk]:
        return (RawChunk(part) for part in columns.records(source, size))

    return Raw(
        path.name.removesuffix(".zst").removesuffix(".npy"),
        chunks,
        frozenset(),
        lambda: columns.sha256(path),
        path,
    )
