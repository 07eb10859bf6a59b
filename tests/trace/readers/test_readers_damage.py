"""Damaged and hostile files: a reader gives a trace or one line, and needs no more time or memory for it.

PAGEWALK_FUZZ=N in the environment tries N times as many inputs.
"""

import bz2
import gzip
import io
import lzma
import os
import random
import resource
import signal
import zipfile
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
import zstandard

import foreign
from foreign import Access
from pagewalk.errors import BadInput
from pagewalk.trace.open import open_trace
from pagewalk.trace.readers import READERS, named, packed

ROUNDS = int(os.environ.get("PAGEWALK_FUZZ", "1"))
MOST_SECONDS = 20
MOST_GROWTH_KIB = 600 << 10
"""What the process may grow by in a test: room for an xz dictionary, and blocks of text and accesses."""

SOME = [
    Access(kind, address, size, cpu, process)
    for kind, address, size, cpu, process in [
        ("fetch", 0x401000, 4, 0, 100),
        ("load", 0x7FFE_0000_1000, 8, 0, 100),
        ("load", 0x10, 1, 1, 101),
        ("store", 0xFFFF_C900_0000_0FF8, 8, 1, 101),
        ("store", 0x10, 1, 0, 100),
        ("fetch", 0xFFFF_FFFF_8100_0000, 2, 3, 100),
        ("load", 0xFF11_0000_0000_0000, 64, 0, 100),
    ]
]
DATA_ONLY = [access for access in SOME if access.kind != "fetch"]


def parquet():
    """A small Parquet file, or an empty one where pyarrow is missing."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return b"PAR1"
    columns = {"address": pa.array([a.address for a in SOME], pa.uint64()), "kind": [a.kind for a in SOME]}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def npy():
    file = io.BytesIO()
    np.save(file, np.array([a.address for a in SOME], np.uint64))
    return file.getvalue()


CONTENT = {
    "npy": npy(),
    "parquet": parquet(),
    "capture": foreign.capture(SOME),
    "drmemtrace": foreign.drmemtrace(SOME),
    "lackey": foreign.lackey(SOME),
    "pinatrace": foreign.pinatrace(DATA_ONLY),
    "drmemtrace-view": foreign.view(SOME),
    "gem5": foreign.gem5(SOME),
    "perf": foreign.perf(DATA_ONLY[:3]),
    "champsim": foreign.champsim(SOME * 3),
    "csv": foreign.csv(SOME),
}


@contextmanager
def bounded():
    """Fail where the body takes too long or too much memory."""

    def late(*_):
        raise AssertionError(f"more than {MOST_SECONDS} s for one input")

    before = signal.signal(signal.SIGALRM, late)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown < MOST_GROWTH_KIB


def attempt(path, content, format_="", seconds=MOST_SECONDS):
    """Read all of a file; the number of accesses, or the line that refuses it."""
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        trace = open_trace(path, format_)
        return sum(len(chunk.page) for chunk in trace.chunks("offset", "flags", "cpu"))
    except BadInput as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        return str(error)


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Kernels are compiled before anything is timed."""
    for content in CONTENT.values():
        attempt(tmp_path_factory.getbasetemp() / "warm", content, seconds=0)


def test_every_reader_is_here():
    assert set(CONTENT) == {reader.name for reader in READERS}


@pytest.mark.parametrize("name", CONTENT)
def test_cut_off_anywhere(tmp_path, name):
    content = CONTENT[name]
    step = max(1, len(content) // 400)
    with bounded():
        whole = attempt(tmp_path / "a", content, name)
        assert isinstance(whole, int) or (name == "parquet" and content == b"PAR1")
        for end in range(0, len(content), step):
            found = attempt(tmp_path / "a", content[:end], name)
            assert isinstance(found, str) or found <= whole
        if name in ("drmemtrace", "parquet", "npy"):  # formats that say where they end
            assert isinstance(found, str)


@pytest.mark.parametrize("name", CONTENT)
def test_damaged_anywhere(tmp_path, name):
    chance = random.Random(name)
    content = CONTENT[name]
    with bounded():
        for number in range(250 * ROUNDS):
            damaged = bytearray(content)
            for _ in range(chance.choice((1, 1, 1, 2, 8))):
                at = chance.randrange(len(damaged))
                what = chance.randrange(6)
                if what == 0:
                    damaged[at] ^= 1 << chance.randrange(8)
                elif what == 1:
                    damaged[at] = chance.choice(b"\0\xff\n 09af:,-=|[")
                elif what == 2:
                    del damaged[at : at + chance.randrange(1, 40)]
                elif what == 3:
                    damaged[at:at] = chance.randbytes(chance.randrange(1, 20))
                elif what == 4:
                    damaged[at:at] = chance.choice((b"9", b"f", b"\xff", b"\0", b" ", b"\n")) * chance.choice(
                        (20, 5000)
                    )
                else:
                    other = chance.randrange(len(damaged))
                    damaged[at:at] = damaged[other : other + chance.randrange(1, 60)]
                damaged = damaged or bytearray(b"\0")
            attempt(tmp_path / "a", bytes(damaged), name if number % 2 else "")


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 5000,
        b"\xff" * 5000,
        b"\n" * 5000,
        b" " * 5000,
        b"9" * 100_000,
        b"0x" + b"f" * 100_000,
        b"#\n" * 5000,
    ],
    ids=["nothing", "zeros", "ones", "lines", "blanks", "digits", "hex", "comments"],
)
def test_nothing_of_the_kind(tmp_path, name, content):
    with bounded():
        attempt(tmp_path / "a", content, name)
        attempt(tmp_path / "a", content)


def test_damaged_words_in_parquet(tmp_path):
    """A word that is no UTF-8; numbers of words beyond the last, which Arrow does not check when it reads."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    table = pa.table({"address": [1, 2], "kind": ["load", "wrong"]})
    pq.write_table(table, file, compression="none", write_statistics=False)
    content = file.getvalue()
    damaged = [content.replace(b"wrong", b"wr\x80ng")]
    word = content.index(b"wrong")
    for at in range(word + 5, content.index(b"kind", word)):  # what follows the words: the numbers
        for bit in range(8):
            damaged.append(bytearray(content))
            damaged[-1][at] ^= 1 << bit
    found = [attempt(tmp_path / "a", bytes(each), "parquet", seconds=0) for each in damaged]
    assert "damaged Parquet" in found[0]
    assert any("bounds" in str(each) for each in found)
    assert attempt(tmp_path / "a", content, "parquet", seconds=0) == 2


def test_a_line_without_end(tmp_path):
    with bounded():
        for name, start in {"lackey": b"", "csv": b"1\n", "perf": b"", "gem5": b""}.items():
            assert "has no end" in attempt(tmp_path / "a", start + b" " * (3 << 20), name)


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        third = len(content) // 3
        for number, start in enumerate((0, third, 2 * third)):
            part = content[start : start + third] if number < 2 else content[start:]
            archive.writestr(f"chunk.{number:04}", part)
    return file.getvalue()


PACK = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.compress,
    "zip": zipped,
}


@pytest.mark.parametrize("pack", PACK)
def test_damaged_in_its_packing(tmp_path, pack):
    content = PACK[pack](foreign.drmemtrace(SOME * 30))
    plain = attempt(tmp_path / "a", foreign.drmemtrace(SOME * 30))
    chance = random.Random(pack)
    with bounded():
        assert attempt(tmp_path / "a", content) == plain == len(SOME) * 30
        if pack != "zip":  # packed files may be put together, and are then one content
            assert attempt(tmp_path / "a", content + content) == 2 * plain
        for end in range(0, len(content) - 1, max(1, len(content) // 200)):
            assert isinstance(attempt(tmp_path / "a", content[:end]), str)
        for _ in range(150 * ROUNDS):
            damaged = bytearray(content)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            attempt(tmp_path / "a", bytes(damaged))


def test_packings_that_are_not_read_say_so(tmp_path):
    assert "lz4 is not read here; decompress it" in attempt(tmp_path / "a", b"\x04\x22\x4d\x18" + b"x" * 50)
    encrypted = bytearray(zipped(b"x" * 100))
    for at in range(len(encrypted) - 4):
        if encrypted[at : at + 4] == b"PK\x01\x02":
            encrypted[at + 8] |= 1
        if encrypted[at : at + 4] == b"PK\x03\x04":
            encrypted[at + 6] |= 1
    assert "is encrypted" in attempt(tmp_path / "a", bytes(encrypted))


def test_bombs_are_read_in_blocks_and_refused_in_the_end(tmp_path, monkeypatch):
    """Half a GiB of spaces in a few KiB: refused as no text; a smaller limit refuses any such swelling."""
    bomb = zstandard.compress(b"1\n" + b" " * (512 << 20))
    assert len(bomb) < 64 << 10
    with bounded():
        assert "has no end" in attempt(tmp_path / "a", bomb, "csv")
        monkeypatch.setattr(packed, "SWELL_FROM", 1 << 20)
        monkeypatch.setattr(packed, "SWELL", 1000)
        lines = zstandard.compress(b"1\n" * (32 << 20))
        assert "times as large as the file" in attempt(tmp_path / "a", lines, "csv")


def test_an_xz_file_that_wants_a_large_dictionary(tmp_path):
    content = bytearray(lzma.compress(b"1\n"))
    assert attempt(tmp_path / "a", bytes(content), "csv") == 1
    at = content.index(
        b"\x21\x01", 12
    )  # LZMA2's id and the length of its properties (xz format, section 5.3.1)
    content[at + 2] = 36  # 2 << (36 // 2 + 11) bytes, which is 1 GiB
    end = 12 + (content[12] + 1) * 4
    content[end - 4 : end] = zlib.crc32(content[12 : end - 4]).to_bytes(4, "little")
    with bounded():
        found = attempt(tmp_path / "a", bytes(content), "csv")
    assert "emory" in found


def test_a_reader_that_does_not_exist(tmp_path):
    (tmp_path / "a").write_bytes(b"1\n")
    with pytest.raises(BadInput, match="no format 'elf'; there are: npy"):
        open_trace(tmp_path / "a", "elf")
    assert named("csv").name == "csv"
