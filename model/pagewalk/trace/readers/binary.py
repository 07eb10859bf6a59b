"""Formats with records of fixed size: kernel captures, ChampSim, DynamoRIO."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.encode import Raw, RawChunk, pieces
from pagewalk.trace.readers import packed
from pagewalk.trace.readers.processes import Processes
from pagewalk.trace.trace import EVENT, FLUSH_ALL, FLUSH_LOCAL

CAPTURE_MAGIC, CAPTURE_VERSION = b"pwcaptur", 2
"""Of tools/kernel-trace/memtrace.c, which describes the format; captures without it have 48-bit addresses."""


def words(path: Path, record_bytes: int, header_bytes: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Blocks of whole records after the header; uint8, shape (records, record_bytes).

    Raises
    ------
    BadInput
        The content cannot be read, or ends within a record.
    """
    rest, done = b"", 0
    skip = header_bytes
    for block in packed.blocks(path):
        content = rest + block[skip:]
        skip = max(skip - len(block), 0)
        whole = len(content) - len(content) % record_bytes
        rest = content[whole:]
        done += whole
        if whole:
            yield np.frombuffer(content, np.uint8, whole).reshape(-1, record_bytes)
    if rest:
        raise BadInput(
            f"{path}: byte {header_bytes + done} of the content",
            f"ends within a record of {record_bytes} bytes",
            "copy or record it again",
        )


def recognises_capture(path: Path, head: bytes) -> bool:
    """By its magic; without one, by bits that every record has clear."""
    if head.startswith(CAPTURE_MAGIC):
        return True
    word = np.frombuffer(head, "<u8", len(head) // 8)
    note = word >> np.uint64(63) != 0
    access_bits = np.uint64(0x7FC0 << 48)
    return bool(
        len(word)
        and np.all(word[note] & ~np.uint64(1 << 63 | 0xFF) == 0)
        and np.all(word[~note] & access_bits == 0)
        and np.any(word & np.uint64(1 << 47))
    )


def read_capture(path: Path) -> Raw:
    """Read a capture of tools/kernel-trace.

    A write of CR4 flushes everything on its CPU, one of CR3 all but global entries (the guest has no PCID);
    INVLPG is not an event, for its address is not recorded.
    """
    head = packed.head(path)
    header_bytes, address_bits, several = 0, 48, False
    if head.startswith(CAPTURE_MAGIC):
        header_bytes, address_bits, several = 16, 57, head[12:16] != b"\x01\0\0\0"
        version = int.from_bytes(head[8:12], "little")
        if len(head) < header_bytes or version != CAPTURE_VERSION:
            raise BadInput(path, f"byte 8: capture version {version}", f"known is {CAPTURE_VERSION}")

    def chunks(size: int) -> Iterator[RawChunk]:
        from pagewalk.kernels.trace.parse.records import NOTE_CR3, NOTE_CR4, capture

        cpu = 0
        for block in words(path, 8, header_bytes):
            word = block.reshape(-1).view("<i8").astype(np.int64, copy=False)
            address = np.empty(len(word), np.int64)
            flags, cpus = np.empty(len(word), np.uint8), np.empty(len(word), np.uint8)
            notes = np.empty((len(word), 3), np.int64)
            records, noted, cpu = capture(word, address_bits, cpu, address, flags, cpus, notes)
            note = notes[:noted]
            note = note[np.isin(note[:, 1], (NOTE_CR3, NOTE_CR4))]
            events = np.zeros(len(note), EVENT)
            events["position"], events["cpu"] = note[:, 0], note[:, 2]
            events["kind"] = np.where(note[:, 1] == NOTE_CR3, FLUSH_LOCAL, FLUSH_ALL)
            chunk = RawChunk(address[:records].view(np.uint64), flags[:records], events=events)
            yield from pieces(chunk._replace(cpu=cpus[:records]) if several else chunk, size)

    return packed.raw(path, chunks, "flags", *(["cpu"] if several else []))


CHAMPSIM_BYTES = 64
"""Of a record: ``input_instr`` of ChampSim's inc/trace_instruction.h, as its public traces have it."""


def recognises_champsim(path: Path, head: bytes) -> bool:
    """By records that all have an instruction pointer, and flags of branches that are 0 or 1."""
    record = np.frombuffer(head, "<u8", len(head) // CHAMPSIM_BYTES * 8).reshape(-1, 8)
    branch, taken = record[:, 1] & np.uint64(0xFF), record[:, 1] >> np.uint64(8) & np.uint64(0xFF)
    return bool(len(record) and np.all(record[:, 0] != 0) and np.all(branch <= 1) and np.all(taken <= branch))


def read_champsim(path: Path) -> Raw:
    """Read a ChampSim trace: for each instruction a fetch, its loads, its stores (taken as 8 bytes)."""

    def chunks(size: int) -> Iterator[RawChunk]:
        from pagewalk.kernels.trace.parse.records import CHAMPSIM_MOST, champsim

        room = CHAMPSIM_MOST * (packed.BLOCK // CHAMPSIM_BYTES + 1)
        for block in words(path, CHAMPSIM_BYTES):
            address, flags = np.empty(room, np.int64), np.empty(room, np.uint8)
            count = champsim(block.view("<i8").astype(np.int64, copy=False), address, flags)
            yield from pieces(RawChunk(address[:count].view(np.uint64), flags[:count]), size)

    return packed.raw(path, chunks, "flags")


ENTRY = np.dtype([("type", "<u2"), ("size", "<u2"), ("value", "<i8")])
"""DynamoRIO's ``trace_entry_t``, packed (clients/drcachesim/common/trace_entry.h)."""

HEADER, FOOTER, VERSION_MOST = 25, 26, 99
"""Types of the first and the last entry of an offline trace file; its version, 2 to 5 so far, is the header's
value."""

DRMEMTRACE_START = np.array([0, -1, 0])
"""Before the first entry: CPU, process, where the next instruction of a bundle is."""


def recognises_drmemtrace(path: Path, head: bytes) -> bool:
    """By the header entry."""
    if len(head) < ENTRY.itemsize:
        return False
    first = np.frombuffer(head, ENTRY, 1)[0]
    return bool(first["type"] == HEADER and 1 <= first["value"] <= VERSION_MOST)


def read_drmemtrace(path: Path) -> Raw:
    """Read a file of a drmemtrace: one thread's, or several interleaved.

    Prefetches and cache flushes are passed; of the markers, the one that names the CPU counts. The reading
    raises BadInput where the footer is missing or an entry is of no known type.
    """

    def chunks(size: int) -> Iterator[RawChunk]:
        state, processes, done, last = DRMEMTRACE_START.copy(), Processes(path), 0, -1
        for block in words(path, ENTRY.itemsize):
            entry = block.view(ENTRY).reshape(-1)
            chunk, process = drmemtrace_accesses(entry, state, path, done)
            done, last = done + len(entry), int(entry["type"][-1])
            yield from pieces(processes.switched(processes.spaced(chunk, process)), size)
        if last != FOOTER:
            raise BadInput(f"{path}: entry {done}", "ends without a footer", "copy or record it again")

    return packed.raw(path, chunks, "flags", "cpu")


def drmemtrace_accesses(
    entry: NDArray[np.void], state: NDArray[np.int64], where: object, before: int
) -> tuple[RawChunk, NDArray[np.int64]]:
    """Take apart a block of entries.

    Parameters
    ----------
    entry : ndarray of ENTRY
    state : ndarray of int64
        `DRMEMTRACE_START` at first; what one block leaves to the next.
    where : object
        What is read, for people.
    before : int
        Entries before this block.

    Returns
    -------
    chunk : RawChunk
        With flags and CPU.
    process : ndarray of int64
        Id of the process that made each access; -1 if no entry has named it.

    Raises
    ------
    BadInput
        An entry is of no known type, or its CPU cannot be told apart.
    """
    from pagewalk.kernels.trace.parse.records import BUNDLE, CPU_ID, DRMEMTRACE_MOST, MARKER, drmemtrace

    word = entry.view("<u4").reshape(-1, 3).astype(np.uint32, copy=False)
    kind, length = entry["type"], entry["size"]
    room = DRMEMTRACE_MOST * int(np.count_nonzero(kind == BUNDLE)) + len(entry)
    address, flags = np.empty(room, np.int64), np.empty(room, np.uint8)
    cpu, process = np.empty(room, np.uint8), np.empty(room, np.int64)
    count, wrong = drmemtrace(word, state, address, flags, cpu, process)
    if wrong >= 0:
        place = f"{where}: entry {before + wrong}"
        if (kind[wrong], length[wrong]) == (MARKER, CPU_ID):
            told = f"CPU {word[wrong, 1] & 0xFFF}"
            raise BadInput(place, told, "256 CPUs at most can be told apart")
        raise BadInput(
            place,
            f"of type {kind[wrong]} and size {length[wrong]}",
            "the file is damaged, or of a newer version of the format",
        )
    return RawChunk(address[:count].view(np.uint64), flags[:count], cpu[:count]), process[:count]
