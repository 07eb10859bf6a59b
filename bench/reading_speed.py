"""How fast other tools' traces are read: records a second of CPU time on one core, in millions.

The files hold the first accesses of the packaged kernel trace. "read" is what opening one costs: taking
records apart, numbering pages, and the SHA-256 of its content, as of a file never seen before. "import" is
`trace convert`: it writes the trace folder, compressed, and takes the SHA-256 of that. "own tool" is
what reads the same file elsewhere, where that can be had: numpy, and pyarrow with one thread. It takes no
SHA-256. The text of the other tools is for people, and none of them reads it.
"""

import os
import struct
import tempfile
import time
from pathlib import Path

import numpy as np

BINARY, TEXT = 1 << 21, 1 << 17
"""Records, and lines (which are repeated `REPEATS` times)."""
REPEATS = 8
ROUNDS = 3
CHAMPSIM_BYTES = 64
"""Of a record."""


def accesses():
    """Addresses and flags (bits of `pagewalk.trace.trace`)."""
    from pagewalk.trace.open import open_trace

    trace = open_trace("sample:gitdiff")
    chunk = next(trace.chunks("offset", "flags", size=BINARY))
    return trace.pages[chunk.page] << np.uint64(12) | chunk.offset, chunk.flags


def _npy(address, flags, path):
    with path.open("wb") as file:
        np.save(file, address)


def _capture(address, flags, path):
    word = address & np.uint64((1 << 57) - 1) | (flags & 0x3F).astype(np.uint64) << np.uint64(57)
    path.write_bytes(b"pwcaptur" + struct.pack("<II", 2, 1) + word.tobytes())


def _drmemtrace(address, flags, path):
    entry = np.zeros(len(address) + 3, "<u2, <u2, <u8")
    entry["f0"][2:-1] = np.select([flags & 0x20 != 0, flags & 8 != 0], [10, 1], 0)
    entry["f1"][2:-1], entry["f2"][2:-1] = 1 << (flags & 7), address
    entry[0], entry[1], entry[-1] = (25, 0, 5), (24, 4, 100), (26, 0, 0)
    path.write_bytes(entry.tobytes())


def _champsim(address, flags, path):
    """One instruction for each data access, 4 bytes behind the one before, from each recorded fetch on."""
    place = np.arange(len(address))
    data = np.flatnonzero(flags & 0x20 == 0)
    fetched = np.maximum.accumulate(np.where(flags & 0x20, place, 0))[data]
    store = flags[data] & 8 != 0
    record = np.zeros((len(data), CHAMPSIM_BYTES // 8), "<u8")
    record[:, 0] = address[fetched] + (4 * (data - fetched)).astype(np.uint64)
    record[:, 2] = np.where(store, address[data], 0)
    record[:, 4] = np.where(store, 0, address[data])
    path.write_bytes(record.tobytes())


def _parquet(address, flags, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = np.array(["load", "store"])[flags >> 3 & 1]
    pq.write_table(pa.table({"address": address, "kind": kind, "size": 1 << (flags & 7)}), path)


def text(line, header=""):
    """A writer of lines, from address, size, and whether it is a store."""

    def write(address, flags, path):
        columns = (
            address[:TEXT].tolist(),
            (1 << (flags[:TEXT] & 7)).tolist(),
            (flags[:TEXT] >> 3 & 1).tolist(),
        )
        body = "".join(line(*each) for each in zip(*columns, strict=True))
        path.write_text(header + body * REPEATS)

    return write


WRITERS = {
    "npy": _npy,
    "capture": _capture,
    "drmemtrace": _drmemtrace,
    "champsim": _champsim,
    "parquet": _parquet,
    "lackey": text(lambda a, size, store: f" {'LS'[store]} {a:08x},{size}\n"),
    "pinatrace": text(lambda a, size, store: f"0xffffffff81000000: {'RW'[store]} {a:#x}\n"),
    "drmemtrace-view": text(
        lambda a, size, store: (
            f"         123          45:     2765542 {('read ', 'write')[store]}       {size} byte(s) "
            f"@ 0x{a:016x} by PC 0x0000000000401000\n"
        )
    ),
    "gem5": text(
        lambda a, size, store: (
            f"   2000: system.cpu0: A0 T0 : 0x401000 @main+4    :   ldr   x1, [x2]       : "
            f"Mem{('Read', 'Write')[store]} :  D=0x0000000000000000 A=0x{a:x}\n"
        )
    ),
    "perf": text(
        lambda a, size, store: (
            f"  git 27106/27106 [001]  1748.943811:          1 cpu/mem-loads,ldlat=30/P: {a:16x} "
            f"10668100842 |OP {('LOAD', 'STORE')[store]}|LVL L1 hit|SNP None|TLB L1 or L2 hit|LCK No|BLK  N/A"
            f"   7fad7c47425d main+0x4 (/usr/bin/git)\n"
        )
    ),
    "csv": text(lambda a, size, store: f"{a:#x},{'RW'[store]},{size}\n", "address,kind,size\n"),
}


def millions(run, count):
    """Records a second of CPU time on one core, in millions; the best of some rounds.

    Where two cores share one's units, threads on both would count their waits for each other as work.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return count / best / 1e6


class Read:
    """One file of each format."""

    params = tuple(WRITERS)
    param_names = ("format",)
    version = "3"
    timeout = 120

    def setup_cache(self):
        address, flags = accesses()
        for name, write in WRITERS.items():
            write(address, flags, Path(name).absolute())
        return str(Path.cwd())

    def setup(self, folder, name):
        from pagewalk.trace.open import open_raw

        self.path, self.name = Path(folder) / name, name
        self.raw = open_raw(self.path, name)
        self.count = TEXT * REPEATS
        if name in ("npy", "capture", "drmemtrace", "parquet"):
            self.count = BINARY
        elif name == "champsim":
            self.count = self.path.stat().st_size // CHAMPSIM_BYTES
        self.read()

    def read(self):
        from pagewalk.trace.encode import Dictionary, gathered

        self.path.touch()
        dictionary = Dictionary()
        for chunk in gathered(self.raw.read(1 << 20)):
            dictionary.encode(chunk.address, chunk.space)
        self.raw.digest()

    def import_(self):
        from pagewalk.trace.open import open_raw
        from pagewalk.trace.store.write import write_stream

        self.path.touch()
        raw = open_raw(self.path, self.name, digest=False)
        with tempfile.TemporaryDirectory() as folder:
            write_stream(raw.read(1 << 20), Path(folder) / "trace")

    def track_read(self, folder, name):
        return millions(self.read, self.count)

    def track_import(self, folder, name):
        return millions(self.import_, self.count)

    def track_own_tool(self, folder, name):
        if name not in OWN_TOOLS:
            return float("nan")
        return millions(lambda: OWN_TOOLS[name](self.path), self.count)

    track_read.pretty_name = "Trace files: read"
    track_import.pretty_name = "Trace files: import"
    track_own_tool.pretty_name = "Trace files: read by the format's own tool"
    track_read.unit = track_import.unit = track_own_tool.unit = "million records / s of CPU time"


def _load_npy(path):
    np.load(path)


def _load_parquet(path):
    import pyarrow.parquet as pq

    pq.read_table(path, use_threads=False)


def _load_csv(path):
    from pyarrow import csv

    csv.read_csv(path, read_options=csv.ReadOptions(use_threads=False))


OWN_TOOLS = {"npy": _load_npy, "parquet": _load_parquet, "csv": _load_csv}
