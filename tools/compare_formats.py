"""Size and speed of ways to store a trace's columns; the table of docs/decisions/0002-trace-format.md.

    python tools/compare_formats.py TRACE_FOLDER      (needs numpy, zstandard, pyarrow, blosc2)

Every way stores the same three columns (page, offset, flags) and is read back a chunk at a time, all three
columns, on one thread, from a warm page cache. Speeds are per second of CPU time, reading the best of three.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import blosc2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

CHUNK = 1 << 20
Columns = dict[str, np.ndarray]


def load(folder: Path) -> Columns:
    columns = {}
    for name in ("page", "offset", "flags"):
        with (folder / f"{name}.npy.zst").open("rb") as file:
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file)
            header = reader.read(10)
            text = reader.read(int.from_bytes(header[8:], "little"))
            dtype = np.dtype(text.split(b"'descr': '")[1].split(b"'")[0].decode())
            columns[name] = np.frombuffer(reader.read(), dtype)
    return columns


def npy_write(columns: Columns, folder: Path) -> None:
    for name, column in columns.items():
        np.save(folder / f"{name}.npy", column)


def npy_read(columns: Columns, folder: Path) -> Iterator[np.ndarray]:
    for name, column in columns.items():
        with (folder / f"{name}.npy").open("rb") as file:
            file.seek(128)
            for start in range(0, len(column), CHUNK):
                part = np.empty(min(CHUNK, len(column) - start), column.dtype)
                file.readinto(part)
                yield part


def zst(
    level: int, frame: int | None = None, window_log: int | None = None, tables: tuple[int, int] | None = None
) -> tuple[Callable, Callable]:
    """Frames of `frame` records; in a window, long-distance matching or larger `tables` of matches (log2)."""
    long = {} if window_log is None else {"window_log": window_log, "enable_ldm": tables is None}
    if tables is not None:
        long["hash_log"], long["chain_log"] = tables
    settings = zstandard.ZstdCompressionParameters.from_level(level, write_checksum=True, **long)

    def write(columns: Columns, folder: Path) -> None:
        for name, column in columns.items():
            with (folder / f"{name}.zst").open("wb") as file:
                step = frame or len(column)
                for start in range(0, len(column), step):
                    compressor = zstandard.ZstdCompressor(compression_params=settings).compressobj()
                    for at in range(start, min(start + step, len(column)), CHUNK):
                        end = min(at + CHUNK, start + step)
                        file.write(compressor.compress(column[at:end].tobytes()))
                    file.write(compressor.flush())

    def read(columns: Columns, folder: Path) -> Iterator[np.ndarray]:
        for name, column in columns.items():
            with (folder / f"{name}.zst").open("rb") as file:
                reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
                    file, read_across_frames=True
                )
                for start in range(0, len(column), CHUNK):
                    part = np.empty(min(CHUNK, len(column) - start), column.dtype)
                    view, filled = memoryview(part).cast("B"), 0
                    while filled < len(view):
                        filled += reader.readinto(view[filled:])
                    yield part

    return write, read


def parquet(level: int, **options: object) -> tuple[Callable, Callable]:
    def write(columns: Columns, folder: Path) -> None:
        pq.write_table(
            pa.table(columns),
            folder / "trace.parquet",
            compression="zstd",
            compression_level=level,
            row_group_size=16 * CHUNK,
            **options,
        )

    def read(columns: Columns, folder: Path) -> Iterator[np.ndarray]:
        file = pq.ParquetFile(folder / "trace.parquet")
        for batch in file.iter_batches(CHUNK, use_threads=False):
            for name in columns:
                yield batch.column(name).to_numpy(zero_copy_only=False)

    return write, read


def blosc(level: int) -> tuple[Callable, Callable]:
    settings = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": level,
        "filters": [blosc2.Filter.SHUFFLE],
        "nthreads": 1,
    }

    def write(columns: Columns, folder: Path) -> None:
        for name, column in columns.items():
            blosc2.asarray(
                column, urlpath=str(folder / f"{name}.b2nd"), mode="w", chunks=(CHUNK,), cparams=settings
            )

    def read(columns: Columns, folder: Path) -> Iterator[np.ndarray]:
        for name, column in columns.items():
            array = blosc2.open(str(folder / f"{name}.b2nd"), mode="r", dparams={"nthreads": 1})
            for start in range(0, len(column), CHUNK):
                yield array[start : start + CHUNK]

    return write, read


WAYS = {
    "npy": (npy_write, npy_read),
    "npy.zst, level 12, window 128 MiB (the recorder's)": zst(12, window_log=27),
    "npy.zst, level 9, window 32 MiB": zst(9, window_log=25),
    "npy.zst, level 3, window 128 MiB": zst(3, window_log=27),
    "npy.zst, level 3, window 32 MiB": zst(3, window_log=25),
    "npy.zst, level 3, window 32 MiB, tables of 2^20 and 2^16": zst(3, window_log=25, tables=(20, 16)),
    "**npy.zst, level 3, window 32 MiB, tables of 2^18 and 2^15 (ours)**": zst(
        3, window_log=25, tables=(18, 15)
    ),
    "npy.zst, level 3, window 32 MiB, frames of 16 Mi records": zst(3, 16 * CHUNK, window_log=25),
    "npy.zst, level 3, frames of 16 Mi records": zst(3, 16 * CHUNK),
    "npy.zst, level 3, frames of 1 Mi records": zst(3, CHUNK),
    "npy.zst, level 12, frames of 1 Mi records": zst(12, CHUNK),
    "parquet, zstd 3, dictionary": parquet(3),
    "parquet, zstd 3, plain": parquet(3, use_dictionary=False),
    "parquet, zstd 3, plain, data pages of 64 MiB": parquet(
        3, use_dictionary=False, data_page_size=64 << 20, max_rows_per_page=16 * CHUNK
    ),
    "parquet, zstd 3, delta": parquet(
        3,
        use_dictionary=False,
        column_encoding=dict.fromkeys(("page", "offset", "flags"), "DELTA_BINARY_PACKED"),
    ),
    "blosc2, zstd 5, shuffle": blosc(5),
}


def main() -> None:
    columns = load(Path(sys.argv[1]))
    count = len(columns["page"])
    print(f"{count / 1e6:.1f} M records\n")
    print("| way | MB | bits a record | write, M/s | read, M/s |\n|---|---|---|---|---|")
    for name, (write, read) in WAYS.items():
        folder = Path(tempfile.mkdtemp())
        start = time.process_time()
        write(columns, folder)
        wrote = time.process_time() - start
        size = sum(file.stat().st_size for file in folder.iterdir())
        took = []
        for _ in range(3):
            start = time.process_time()
            got = sum(len(part) for part in read(columns, folder))
            took.append(time.process_time() - start)
            assert got == count * len(columns)
        shutil.rmtree(folder)
        print(
            f"| {name} | {size / 1e6:.2f} | {8 * size / count:.3f} | {count / wrote / 1e6:.0f} "
            f"| {count / min(took) / 1e6:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
