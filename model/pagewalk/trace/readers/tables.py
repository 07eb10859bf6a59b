"""Tables whose columns have names: CSV and Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.encode import Raw, RawChunk, pieces
from pagewalk.trace.readers import packed
from pagewalk.trace.readers.processes import Processes
from pagewalk.trace.readers.text import Form, Parser, parsed_file
from pagewalk.trace.store.columns import regular_file
from pagewalk.trace.trace import FETCH, STORE

if TYPE_CHECKING:
    import pyarrow.parquet

NAMES = {
    "address": ("address", "addr", "vaddr", "va", "virtual_address"),
    "kind": ("kind", "type", "op", "rw", "access"),
    "size": ("size", "bytes", "length"),
    "cpu": ("cpu", "core"),
    "process": ("process", "pid", "space", "asid"),
}
"""What a column may be called, in lower case. Other columns are not looked at."""

ROLES = ("ignored", "address", "kind", "size", "cpu", "process")
"""In the order of the numbers in `pagewalk.kernels.trace.parse.samples`."""

COLUMNS_MOST = 256

SIZE_MOST = 128
SIZE_LOG2 = np.array([0, 0, *((size - 1).bit_length() for size in range(2, SIZE_MOST + 1))], np.uint8)
"""log2 of a size in bytes, rounded up."""


def role(name: str) -> str:
    """What a column holds, by its name."""
    plain = name.strip().strip('"').strip().lower()
    return next((each for each, names in NAMES.items() if plain in names), "ignored")


# ---- CSV -------------------------------------------------------------------------


def recognises_csv(path: Path, head: bytes) -> bool:
    """By a first line that names an address column, or begins with a number."""
    if b"\x00" in head:
        return False
    return "address" in _header(head)[1]


def read_csv(path: Path) -> Raw:
    """Read a CSV file: address, then kind, size, cpu, process where it has no header.

    Raises
    ------
    BadInput
        It has no address column, or (while it is read) a row that is not of its form.
    """
    header_bytes, names, separator = _header(packed.head(path))
    if "address" not in names:
        raise BadInput(path, "no column of addresses", "call it address, or give no header")
    form = Form(
        lambda: _csv_parser(names, separator, header_bytes),
        cpu="cpu" in names,
        process="process" in names,
        complete=True,
        mend="a row is address[,kind[,size[,cpu[,process]]]]; see docs/formats.md",
    )
    columns = ["flags", "cpu"] if form.cpu else ["flags"]
    return packed.raw(path, lambda size: _switching(path, form, parsed_file(path, form, size)), *columns)


def _csv_parser(names: list[str], separator: str, header_bytes: int) -> Parser:
    from pagewalk.kernels.trace.parse.samples import csv

    roles = np.array([ROLES.index(name) for name in names], np.int64)
    skip = header_bytes

    def parse(text: NDArray[np.uint8], end: int, out: Any) -> tuple[int, int]:
        nonlocal skip
        done, skip = skip, 0
        count, wrong = csv(text[done:], end - done, ord(separator), roles, out)
        return count, wrong + done if wrong >= 0 else wrong

    return parse


def _switching(path: Path, form: Form, chunks: Iterator[RawChunk]) -> Iterator[RawChunk]:
    if not form.process:
        return chunks
    processes = Processes(path)
    return (processes.switched(chunk) for chunk in chunks)


def _header(head: bytes) -> tuple[int, list[str], str]:
    """Bytes up to the end of the header, if there is one; roles of the columns; separator."""
    lines = head.split(b"\n")
    at = next(
        (i for i, line in enumerate(lines) if line.strip() and not line.startswith(b"#")), len(lines) - 1
    )
    end = min(sum(len(line) + 1 for line in lines[: at + 1]), len(head))
    first = lines[at].decode("ascii", "replace").strip()
    separator = next((each for each in ",;\t" if each in first), " ")
    fields = first.split(separator if separator != " " else None)
    if len(fields) > COLUMNS_MOST:
        return 0, [], separator
    roles = [role(field) for field in fields]
    if "address" not in roles and first[:1].isdigit():
        return 0, [*ROLES[1:], *["ignored"] * len(fields)][: len(fields)], separator
    return end, roles, separator


# ---- Parquet ---------------------------------------------------------------------


def recognises_parquet(path: Path, head: bytes) -> bool:
    """By its magic."""
    return head.startswith(b"PAR1")


def read_parquet(path: Path) -> Raw:
    """Read a Parquet file with a column of addresses, and perhaps of kind, size, cpu, process.

    Raises
    ------
    BadInput
        pyarrow is missing, the file is damaged, or has no column of integer addresses.
    """
    file = _parquet(path)
    names: dict[str, str] = {}
    for name in file.schema_arrow.names:
        names.setdefault(role(name), name)
    if "address" not in names:
        raise BadInput(path, "no column of addresses", "call it address")
    names.pop("ignored", None)
    return packed.raw(
        path, lambda size: _parquet_chunks(path, names, size), "flags", *(["cpu"] if "cpu" in names else [])
    )


def _parquet(path: Path, words: Sequence[str] = ()) -> "pyarrow.parquet.ParquetFile":
    regular_file(path)
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise BadInput(path, "Parquet needs pyarrow", "pip install pyarrow") from None
    try:
        return pq.ParquetFile(path, memory_map=True, read_dictionary=list(words))
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise BadInput(path, f"damaged Parquet ({error})", "write it again") from None


def _parquet_chunks(path: Path, names: dict[str, str], size: int) -> Iterator[RawChunk]:
    import pyarrow as pa

    processes = Processes(path)
    try:
        file = _parquet(path, [names["kind"]] if "kind" in names else [])
        for batch in file.iter_batches(batch_size=size, columns=list(names.values())):
            columns = {each: batch.column(batch.schema.get_field_index(name)) for each, name in names.items()}
            if any(column.null_count for column in columns.values()):
                raise BadInput(path, "a row lacks a value", "fill or drop such rows")
            address = _integers(path, names["address"], columns["address"])
            flags = np.zeros(len(address), np.uint8)
            if "kind" in columns:
                flags |= _kinds(path, names["kind"], columns["kind"])
            if "size" in columns:
                flags |= SIZE_LOG2[np.minimum(_integers(path, names["size"], columns["size"]), SIZE_MOST)]
            chunk = RawChunk(address, flags)
            if "cpu" in columns:
                cpu = _integers(path, names["cpu"], columns["cpu"])
                if len(cpu) and cpu.max() > 255:
                    raise BadInput(path, f"CPU {cpu.max()}", "256 CPUs at most can be told apart")
                chunk = chunk._replace(cpu=cpu.astype(np.uint8))
            if "process" in columns:
                process = _integers(path, names["process"], columns["process"]).view(np.int64)
                chunk = processes.switched(processes.spaced(chunk, process))
            yield from pieces(chunk, size)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise BadInput(path, f"damaged Parquet ({error})", "write it again") from None


def _integers(path: Path, name: str, column: Any) -> NDArray[np.uint64]:
    import pyarrow as pa

    if not pa.types.is_integer(column.type):
        raise BadInput(f"{path}: column {name}", f"{column.type}, not integers", "convert it to uint64")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return (
        values.astype(np.int64, copy=False).view(np.uint64)
        if values.dtype.kind == "i"
        else values.astype(np.uint64)
    )


def _kinds(path: Path, name: str, column: Any) -> NDArray[np.uint8]:
    """Flags of a column of words such as load, R, store, 1, ifetch, by their first letters."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column.validate(full=True)  # Arrow reads damaged words and numbers of words unseen
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    flag = {**dict.fromkeys("rl0", 0), **dict.fromkeys("ws1", STORE), **dict.fromkeys("if2", FETCH)}
    words = [str(word) for word in pc.cast(column.dictionary, pa.string()).to_pylist()]
    unknown = [word for word in words if word[:1].lower() not in flag]
    if unknown:
        raise BadInput(f"{path}: column {name}", f"{unknown[0][:40]!r} is no kind", "load, store or fetch")
    table = np.array([flag[word[:1].lower()] for word in words], np.uint8)
    flags: NDArray[np.uint8] = table[column.indices.to_numpy(zero_copy_only=False)]
    return flags
