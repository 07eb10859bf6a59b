"""Readers of other tools' formats: each turns a file into raw accesses."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

from pagewalk.errors import BadInput
from pagewalk.trace.encode import Raw
from pagewalk.trace.instructions import EACH
from pagewalk.trace.readers import binary, npy, tables, text

GROUP = "pagewalk.trace_readers"
"""Entry points of this group add readers: each names a `Reader`."""


class Reader(NamedTuple):
    """A format that `open_trace` can read."""

    name: str
    recognises: Callable[[Path, bytes], bool]
    """Whether a file, given its name and the first bytes of its content (decompressed), is of this format."""
    read: Callable[[Path], Raw]
    carries: frozenset[str] = frozenset()
    """Those of "size", "store", "fetch", "cpu", "process", "time" that it tells of an access."""
    about: str = ""
    """The tool that writes it."""


def _reader(
    name: str,
    recognises: Callable[[Path, bytes], bool],
    read: Callable[[Path], Raw],
    carries: str,
    about: str,
    *,
    counts_instructions: bool = False,
) -> Reader:
    """Describe a reader; `counts_instructions`: its traces have a fetch for each instruction."""

    def counted(path: Path) -> Raw:
        raw = read(path)
        return replace(raw, about={**(raw.about or {}), **EACH})

    reads = counted if counts_instructions else read
    return Reader(name, recognises, reads, frozenset(carries.split()), about)


READERS = (
    _reader("npy", npy.recognises, npy.read, "", "numpy.save of uint64 addresses"),
    _reader(
        "parquet",
        tables.recognises_parquet,
        tables.read_parquet,
        "size store fetch cpu process",
        "columns address, kind, size, cpu, process; needs pyarrow",
    ),
    _reader(
        "capture",
        binary.recognises_capture,
        binary.read_capture,
        "size store fetch cpu",
        "raw captures of tools/kernel-trace",
    ),
    _reader(
        "drmemtrace",
        binary.recognises_drmemtrace,
        binary.read_drmemtrace,
        "size store fetch cpu process time",
        "DynamoRIO drmemtrace, offline files (.zip, .gz)",
        counts_instructions=True,
    ),
    _reader(
        "lackey",
        text.recognises("lackey"),
        text.read(text.LACKEY),
        "size store fetch",
        "valgrind --tool=lackey --trace-mem=yes",
        counts_instructions=True,
    ),
    _reader("pinatrace", text.recognises("pinatrace"), text.read(text.PINATRACE), "store", "Pin's pinatrace"),
    _reader(
        "drmemtrace-view",
        text.recognises("view"),
        text.read(text.VIEW),
        "size store fetch cpu",
        "DynamoRIO drmemtrace, text of its view tool",
        counts_instructions=True,
    ),
    _reader(
        "gem5",
        text.recognises("gem5"),
        text.read(text.GEM5),
        "store fetch cpu time",
        "gem5 --debug-flags=Exec or MemTest",
    ),
    _reader(
        "perf",
        text.recognises("perf"),
        text.read(text.PERF),
        "store fetch cpu process time",
        "perf script with data addresses, trace-cmd report; samples, not every access",
    ),
    _reader(
        "champsim",
        binary.recognises_champsim,
        binary.read_champsim,
        "store fetch",
        "ChampSim instruction traces (.xz, .gz)",
        counts_instructions=True,
    ),
    _reader(
        "csv",
        tables.recognises_csv,
        tables.read_csv,
        "size store fetch cpu process",
        "text columns address, kind, size, cpu, process",
    ),
)
"""Asked in this order, after those of other distributions; the first that recognises a file reads it."""


def added() -> Iterator[Reader]:
    """The readers that other distributions add.

    Raises
    ------
    BadInput
        One of them cannot be loaded, or is no `Reader`.
    """
    for point in entry_points(group=GROUP):
        place = f"{GROUP}: {point.name}"
        try:
            reader = point.load()
        except Exception as error:  # another distribution's code may raise whatever it likes
            raise BadInput(place, f"cannot be loaded ({error})", "update or uninstall it") from None
        if not isinstance(reader, Reader):
            raise BadInput(place, "is no pagewalk.trace.readers.Reader", "update or uninstall it")
        yield reader


def readers() -> Iterator[Reader]:
    """All readers, in the order in which they are asked.

    Added ones come first: a few of ours go by likelihood, and would take any file that has kernel addresses.
    """
    yield from added()
    yield from READERS


def named(name: str) -> Reader:
    """The reader of that name.

    Raises
    ------
    BadInput
        There is none.
    """
    for reader in readers():
        if reader.name == name:
            return reader
    known = ", ".join(reader.name for reader in readers())
    raise BadInput("--format", f"no format {name!r}", f"there are: {known}")
