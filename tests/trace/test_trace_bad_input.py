"""Damaged, hostile and mistaken traces: one line that says what is wrong, and nothing else happens."""

import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard

from pagewalk.errors import BadInput
from pagewalk.trace.open import open_trace
from pagewalk.trace.store.write import write_trace
from pagewalk.trace.trace import EVENT, Trace, from_pages

MIB = 1 << 20


def sound() -> Trace:
    """A small trace with everything that a trace can have."""
    draw = np.random.default_rng(1)
    pages = draw.permutation(0xFFFFC90000000 + np.arange(200)).astype(np.uint64)
    events = np.zeros(5, EVENT)
    events["position"], events["kind"], events["end"] = [0, 10, 10, 500, 3000], range(5), 4096
    return from_pages(
        "sound",
        np.append(pages, pages[:20]),
        draw.integers(0, 220, 3000).astype(np.uint32),
        offset=draw.integers(0, 4096, 3000).astype(np.uint16),
        flags=draw.integers(0, 64, 3000).astype(np.uint8),
        cpu=draw.integers(0, 3, 3000).astype(np.uint8),
        spaces=np.append(np.zeros(200), np.ones(20)).astype(np.uint16),
        events=events,
    )


@pytest.fixture(params=["packed", "plain"])
def folder(tmp_path, request) -> Path:
    write_trace(sound(), tmp_path / "t", compress=request.param == "packed")
    return tmp_path / "t"


def read_all(path: Path) -> None:
    """Read a trace to its end; what comes must keep the promises of `Trace`."""
    trace = open_trace(path)
    start = 0
    for chunk in trace.chunks("offset", "flags", "cpu", size=1000):
        assert chunk.start == start
        start += len(chunk.page)
        assert all(column is None or len(column) == len(chunk.page) for column in chunk[2:])
        assert chunk.page.max(initial=0) < len(trace.pages)
        assert chunk.offset is None or chunk.offset.max(initial=0) < 1 << trace.page_shift
        assert chunk.cpu is None or chunk.cpu.max(initial=0) < trace.cpus
    assert start == trace.accesses


def refused(path: Path) -> str:
    """The line that refuses a trace."""
    with pytest.raises(BadInput) as caught:
        read_all(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


def columns_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name != "meta.json"]


def test_a_sound_trace_is_read(folder):
    read_all(folder)


def test_every_truncation_is_noticed(folder):
    places = random.Random(5)
    for path in columns_of(folder):
        content = path.read_bytes()
        last = range(len(content) - 12, len(content))
        for length in {0, 1, 6, 9, 10, 11, 127, 128, 137, *last, *places.sample(range(len(content)), 12)}:
            path.write_bytes(content[:length])
            assert path.name in refused(folder)
        path.write_bytes(content)


def test_flipped_bits_are_refused_or_harmless(folder):
    places = random.Random(7)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(60):
            place = places.randrange(min(len(content), 160) if places.random() < 0.5 else len(content))
            damaged = bytearray(content)
            damaged[place] ^= 1 << places.randrange(8)
            path.write_bytes(damaged)
            try:
                read_all(folder)
            except BadInput as error:
                assert str(folder) in str(error)
        path.write_bytes(content)


def test_flipped_bits_in_compressed_records_are_noticed(folder):
    """Behind the header frame every bit stands under a checksum."""
    places = random.Random(11)
    for path in folder.glob("*.zst"):
        content = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(content)
            damaged[places.randrange(150, len(content))] ^= 1 << places.randrange(8)
            path.write_bytes(damaged)
            assert path.name in refused(folder)
        path.write_bytes(content)


def test_something_behind_the_end_is_noticed(folder):
    for path in columns_of(folder):
        content = path.read_bytes()
        for more in (b"\0", content, zstandard.compress(b"more")):
            path.write_bytes(content + more)
            assert path.name in refused(folder)
        path.write_bytes(content)


def npy(array: object, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), **options)
    return file.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")


def promise(count: int, dtype: str = "<u2") -> bytes:
    return header(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({count},)}}")


WRONG = {
    "another type": (npy(np.zeros(3000, np.float32)), "type is float32"),
    "wider than allowed": (npy(np.zeros(3000, np.uint64)), "type is uint64"),
    "signed": (npy(np.zeros(3000, np.int16)), "type is int16"),
    "two-dimensional": (npy(np.zeros((3000, 1), np.uint16)), "not one-dimensional"),
    "a single number": (npy(np.uint16(3)), "not one-dimensional"),
    "shorter than the others": (npy(np.zeros(2999, np.uint16)), "2999 records, but"),
    "longer than the others": (npy(np.zeros(3001, np.uint16)), "3001 records, but"),
    "pickled objects": (npy(np.array([{}] * 3000), allow_pickle=True), "object"),
    "no array": (b"PK\x03\x04" + bytes(200), "no .npy header"),
    "another version": (b"\x93NUMPY\x09\x00" + bytes(200), "no .npy header"),
    "a huge header": (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(200), "header of 2147483647 bytes"),
    "a header that runs code": (header("__import__('os').abort()"), "cannot be understood"),
    "a deep header": (header("(" * 9000), "cannot be understood"),
    "an endless shape": (promise(2**62), "records"),
    "a negative shape": (promise(-1), "shape (-1,)"),
    "a shape beyond integers": (promise(10**40), "records"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_column_that_is_none(tmp_path, wrong):
    write_trace(sound(), tmp_path / "t", compress=False)
    content, message = WRONG[wrong]
    (tmp_path / "t" / "offset.npy").write_bytes(content)
    line = refused(tmp_path / "t")
    assert "offset.npy" in line
    assert message in line
    (tmp_path / "t" / "offset.npy").unlink()
    (tmp_path / "t" / "offset.npy.zst").write_bytes(zstandard.compress(content))
    assert "offset.npy.zst" in refused(tmp_path / "t")


def test_bytes_in_the_wrong_order(tmp_path):
    write_trace(sound(), tmp_path / "t", compress=False)
    np.save(tmp_path / "t" / "offset.npy", np.zeros(3000, ">u2"))
    assert "byte order of >u2; convert it: array.astype('<u2')" in refused(tmp_path / "t")


def rewritten(folder: Path, name: str, place: int, value: int) -> str:
    array = np.load(folder / f"{name}.npy")
    array[place] = value
    np.save(folder / f"{name}.npy", array)
    return refused(folder)


def test_values_out_of_range_are_told_by_their_place(tmp_path):
    def fresh() -> Path:
        shutil.rmtree(tmp_path / "t", ignore_errors=True)
        write_trace(sound(), tmp_path / "t", compress=False)
        return tmp_path / "t"

    assert "page.npy: record 2345: 220 is out of range" in rewritten(fresh(), "page", 2345, 220)
    assert "offset.npy: record 1234: 4096 is out of range" in rewritten(fresh(), "offset", 1234, 4096)
    assert 'meta.json: "cpus" is 3' in rewritten(fresh(), "cpu", 5, 9)
    assert "pages.npy: entry 7: 0x10000000000000 is no page number" in rewritten(fresh(), "pages", 7, 1 << 52)
    first = int(np.load(tmp_path / "t" / "pages.npy")[3])
    assert f"page {first:#x} stands there twice" in rewritten(fresh(), "pages", 100, first)
    folder = fresh()
    events = np.load(folder / "events.npy")
    for field, place, value, what in (
        ("position", 4, 3001, "after the last record"),
        ("position", 1, 11, "before the event above it"),
        ("kind", 2, 6, "unknown kind"),
        ("cpu", 3, 9, "is on none of the CPUs 0 to "),
        ("start", 2, 4097, "ends before it starts"),
    ):
        wrong = events.copy()
        wrong[field][place] = value
        np.save(folder / "events.npy", wrong)
        assert what in refused(folder)


@pytest.mark.parametrize(
    "meta",
    ["", "{", "[]", "3", '"x"', "nul", "[" * 100_000, '{"schema": "pagewalk.trace/2"}', '{"format": 2}',
     '{"records": 2999}', '{"records": "3000"}', '{"records": -1}', '{"records": true}', '{"page_shift": 64}',
     '{"page_shift": 11}', '{"cpus": 2}', '{"cpus": 257}', "\xff"],
)  # fmt: skip
def test_words_of_the_recorder_that_cannot_be(folder, meta):
    (folder / "meta.json").write_bytes(meta.encode("latin1"))
    assert "meta.json" in refused(folder)


def test_words_of_the_recorder_that_are_endless(folder):
    with (folder / "meta.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "longer than" in refused(folder)


def test_missing_and_doubled_files(folder):
    page = next(folder.glob("page.npy*"))
    content = page.read_bytes()
    page.unlink()
    assert "no page.npy" in refused(folder)
    for name in ("page.npy", "page.npy.zst"):
        (folder / name).write_bytes(content)
    assert "stands beside" in refused(folder)
    (folder / "pages.npy").unlink()
    assert "no pages.npy" in refused(folder)
    assert "No such file" in refused(folder / "nothing")


def test_what_is_no_file_is_not_opened(folder):
    """A pipe would hang, a device would never end, a link could lead to anybody's file."""
    page = next(folder.glob("page.npy*"))
    kept = folder.parent / "kept"
    page.rename(kept)
    for make in (os.mkfifo, os.mkdir):
        make(page)
        assert "not a regular file" in refused(folder)
        page.rmdir() if page.is_dir() else page.unlink()
    page.symlink_to(kept)
    assert "a link out of the trace folder" in refused(folder)
    page.unlink()
    kept.rename(folder / "elsewhere")
    page.symlink_to("elsewhere")
    read_all(folder)
    page.unlink()
    page.symlink_to(page.name)
    assert "symbolic links" in refused(folder)
    for device in ("/dev/zero", "/dev/null"):
        assert "not a regular file" in refused(Path(device))


def in_little_memory(code: str) -> subprocess.CompletedProcess[str]:
    """Run with 3 GiB of address space, of which numba, numpy and threads take most."""
    limit = 3 << 30
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )


def test_bombs_are_not_unpacked(tmp_path):
    """A few bytes that stand for 64 GiB, and headers that promise as much, cost neither time nor memory."""
    write_trace(sound(), tmp_path / "t", compress=False)
    folder = tmp_path / "t"
    zeros, packer = bytes(MIB), zstandard.ZstdCompressor(level=1)
    for name in ("page", "offset", "flags"):
        (folder / f"{name}.npy").unlink()
        start = npy(np.zeros(3000, {"page": "<u2", "offset": "<u2", "flags": "u1"}[name]))
        unpacked = packer.compressobj()
        bomb = unpacked.compress(start) + b"".join(unpacked.compress(zeros) for _ in range(256))
        more = packer.compress(zeros * 64) * 1000
        (folder / f"{name}.npy.zst").write_bytes(bomb + unpacked.flush() + more)
    code = (
        "import resource; from pagewalk.trace.open import open_trace; from pagewalk.errors import BadInput\n"
        f"trace = open_trace({str(folder)!r})\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: list(trace.chunks('offset', 'flags'))\n"
        "except BadInput as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = in_little_memory(code)
    assert "goes on after the last record" in done.stdout, done
    assert int(done.stdout.split()[-1]) < 64
    for path in folder.glob("*.zst"):
        path.write_bytes(zstandard.compress(promise(2**40, "|u1" if "flags" in path.name else "<u2")))
    for name in ("meta.json", "cpu.npy", "events.npy"):
        (folder / name).unlink()
    done = in_little_memory(code)
    assert "record 0: the content ends here; its header says 1099511627776 records" in done.stdout, done
    assert int(done.stdout.split()[-1]) < 64


def test_a_table_of_pages_beyond_memory(tmp_path):
    write_trace(sound(), tmp_path / "t")
    count = 1 << 30
    with (tmp_path / "t" / "pages.npy").open("wb") as file:
        file.write(promise(count, "<u8"))
        file.truncate(file.tell() + 8 * count)
    code = (
        "from pagewalk.trace.open import open_trace; from pagewalk.errors import BadInput\n"
        f"try: open_trace({str(tmp_path / 't')!r})\n"
        "except BadInput as error: print(error)\n"
    )
    assert "do not fit into memory" in in_little_memory(code).stdout


def test_a_window_that_asks_for_too_much_memory(tmp_path):
    write_trace(sound(), tmp_path / "t", compress=False)
    settings = zstandard.ZstdCompressionParameters.from_level(1, window_log=31)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    content = packer.compress((tmp_path / "t" / "page.npy").read_bytes()) + packer.flush()
    (tmp_path / "t" / "page.npy").unlink()
    (tmp_path / "t" / "page.npy.zst").write_bytes(content)
    assert "page.npy.zst: damaged or unknown zstd data" in refused(tmp_path / "t")


ADDRESSES = {
    "signed": (npy(np.zeros(5, np.int64)), "type is int64, not uint64; convert it: array.astype('uint64')"),
    "floats": (npy(np.zeros(5)), "type is float64"),
    "the wrong byte order": (npy(np.zeros(5, ">u8")), "byte order of >u8; convert it: array.astype('<u8')"),
    "two-dimensional": (npy(np.zeros((2, 5), np.uint64)), "not one-dimensional; save array.ravel()"),
    "empty": (npy(np.zeros(0, np.uint64)), "an empty array"),
    "pickled": (npy(np.array([1, "a"], object), allow_pickle=True), "object"),
    "nothing": (b"", "in no known format"),
    "text": (b"no trace at all\n", "in no known format"),
    "truncated": (npy(np.zeros(5, np.uint64))[:-1], "5 records in 168 bytes, not 167"),
    "too long": (npy(np.zeros(5, np.uint64)) + b"\0", "5 records in 168 bytes, not 169"),
}


@pytest.mark.parametrize("wrong", ADDRESSES)
def test_addresses_that_are_none(tmp_path, wrong):
    content, message = ADDRESSES[wrong]
    path = tmp_path / "a.trace"
    path.write_bytes(content)
    assert message in refused(path)


def test_addresses_that_change_while_they_are_read(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(0, 100 << 12, 4096, dtype=np.uint64))
    trace = open_trace(path)
    np.save(path, np.arange(7 << 12, 107 << 12, 4096, dtype=np.uint64))
    assert [c.page.tolist() for c in trace.chunks()] == [list(range(100))]
    with pytest.raises(BadInput, match="changed while it was read"):
        list(trace.chunks("offset"))
    np.save(path, np.arange(0, 99 << 12, 4096, dtype=np.uint64))
    with pytest.raises(BadInput):
        list(trace.chunks("offset"))


def test_a_truncated_file_of_addresses(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(0, 1000 << 12, 4096, dtype=np.uint64))
    content = path.read_bytes()
    for length in (0, 5, 8, 9, 60, 127, 128, 129, 4000, len(content) - 8, len(content) - 1):
        path.write_bytes(content[:length])
        assert str(path) in refused(path)


def test_json_with_odd_facts_does_no_harm(folder):
    meta = json.loads((folder / "meta.json").read_text())
    for odd in ({"recorder": 3}, {"sha256": []}, {"made_by": None}, {"unheard-of": {}}):
        (folder / "meta.json").write_text(json.dumps(meta | odd))
        read_all(folder)
        open_trace(folder).digest()
