"""Addresses become numbers of pages: compiled loops against plain ones, files of addresses against numpy."""

import hashlib
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.kernels.trace.encode import FREE, Table, encode, rehash, tally
from pagewalk.kernels.trace.synth import ranks, shuffle
from pagewalk.trace.encode import Dictionary, Raw, RawChunk, encoded, gathered, pieces
from pagewalk.trace.facts import facts
from pagewalk.trace.open import open_trace
from pagewalk.trace.trace import EVENT, FETCH, STORE, from_pages

HIGHEST = (1 << 52) - 1
PAGES = st.one_of(
    st.integers(0, HIGHEST),
    st.integers(0xFFFFC90000000, 0xFFFFC90000000 + 40),
    st.integers(0, 30).map(lambda n: n << 40),
    st.sampled_from([0, HIGHEST]),
)


def numbered(pages: list[int]) -> list[int]:
    """Number of first appearance of each page: the obvious way."""
    seen: dict[int, int] = {}
    return [seen.setdefault(page, len(seen)) for page in pages]


@settings(max_examples=200, deadline=None)
@given(pages=st.lists(PAGES, max_size=300), cut=st.integers(0, 300))
def test_pages_are_numbered_as_they_appear(pages, cut):
    dictionary = Dictionary()
    address = np.array(pages, np.uint64) << np.uint64(12)
    found = np.concatenate([dictionary.encode(address[:cut]), dictionary.encode(address[cut:])])
    assert found.tolist() == numbered(pages)
    assert dictionary.pages.tolist() == list(dict.fromkeys(pages))


@pytest.mark.parametrize("spread", [1, 8, 512, 1 << 18, 1 << 26, 1 << 35], ids="apart by {}".format)
def test_the_table_grows(spread):
    """Through many sizes, for pages that lie any power of two apart."""
    pages = np.arange(100_000) * spread % (1 << 52)
    dictionary = Dictionary()
    found = dictionary.encode(pages.astype(np.uint64) << np.uint64(12))
    expected = np.unique(pages, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(expected[1]))
    np.testing.assert_array_equal(found, order[expected[2]])


def test_a_full_table_stops_and_keeps_what_it_has():
    table = Table(np.full(8, FREE, np.int32), np.empty(4, np.int64))
    out = np.zeros(7, np.uint32)
    page = np.array([9, 9, 8, 9, 7, 6, 5], np.int64)
    assert encode(page, table, 0, out) == (6, 4)
    assert out[:6].tolist() == [0, 0, 1, 0, 2, 3]
    larger = Table(np.full(16, FREE, np.int32), np.append(table.page, np.empty(4, np.int64)))
    rehash(larger, 4)
    assert encode(page, larger, 4, out) == (7, 5)
    assert out.tolist() == [0, 0, 1, 0, 2, 3, 4]


@settings(max_examples=100, deadline=None)
@given(
    records=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, STORE, FETCH, FETCH | STORE, 3]))),
    size=st.integers(1, 10),
)
def test_facts_are_counts(records, size):
    page = np.array([page for page, _ in records], np.uint32)
    flags = np.array([flag for _, flag in records], np.uint8)
    found = facts(from_pages("t", np.arange(6, dtype=np.uint64), page, flags=flags))
    data = [page for page, flag in records if not flag & FETCH]
    for number in range(6):
        mine = [flag for page, flag in records if page == number]
        assert found.fetches[number] == sum(bool(flag & FETCH) for flag in mine)
        assert found.stores[number] == sum(flag & (FETCH | STORE) == STORE for flag in mine)
        assert found.loads[number] == sum(not flag & (FETCH | STORE) for flag in mine)
        assert found.data[number] == data.count(number)
    kinds = ["fetch" if flag & FETCH else "store" if flag & STORE else "load" for _, flag in records]
    for row, wanted in enumerate((["load"], ["store"], ["fetch"], ["load", "store"])):
        stream = [number for (number, _), kind in zip(records, kinds, strict=True) if kind in wanted]
        begun = [one for one, before in zip(stream, [None, *stream], strict=False) if one != before]
        assert found.runs[:, row].tolist() == [begun.count(number) for number in range(6)]
    assert found.by_cpu.tolist() == [len(records)]


def test_runs_go_on_over_chunks():
    count, runs, last = np.zeros((2, 3), np.int64), np.zeros((2, 4), np.int64), np.full(4, -1)
    tally(np.array([0, 0, 1], np.int64), np.array([0, 0, 0], np.uint8), count, runs, last)
    assert last.tolist() == [1, -1, -1, 1]
    tally(np.array([1, 1, 0], np.int64), np.array([0, 2, 1], np.uint8), count, runs, last)
    assert count.tolist() == [[2, 1, 0], [2, 0, 1]]
    assert runs.tolist() == [[1, 1, 0, 2], [1, 0, 1, 1]]


@settings(max_examples=100, deadline=None)
@given(draws=st.lists(st.integers(0, 2**32 - 1), max_size=40), rest=st.integers(0, 10))
def test_shuffle_is_fisher_and_yates(draws, rest):
    order = np.arange(len(draws) + rest)
    shuffle(order, len(order), np.array(draws, np.int64))
    expected = list(range(len(draws) + rest))
    for last, draw in zip(reversed(range(len(expected))), draws, strict=False):
        other = draw * (last + 1) // 2**32
        expected[last], expected[other] = expected[other], expected[last]
    assert order.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(share=st.lists(st.integers(0, 1023), min_size=1, max_size=40), shift=st.integers(0, 10))
def test_ranks_are_a_bisection(share, shift):
    ascending = np.append(np.sort(np.array(share, np.int64)), 1024)
    draw = np.arange(1024)
    guide = np.searchsorted(ascending, np.arange((1024 >> shift) + 1) << shift, side="right")
    out = np.empty(1024, np.int64)
    ranks(draw, shift, ascending, guide, out)
    assert out.tolist() == [sum(int(each) <= number for each in ascending) for number in range(1024)]


@settings(max_examples=60, deadline=None)
@given(pages=st.lists(PAGES, min_size=1, max_size=200), size=st.integers(1, 300), seed=st.integers(0, 99))
def test_a_file_of_addresses(tmp_path_factory, pages, size, seed):
    address = np.array(pages, np.uint64) << np.uint64(12)
    address |= np.random.default_rng(seed).integers(0, 4096, len(pages)).astype(np.uint64)
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    np.save(path, address)
    trace = open_trace(path)
    assert (trace.name, trace.accesses, trace.columns) == ("a", len(pages), {"offset"})
    assert trace.digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    found = [trace.pages[c.page] << np.uint64(12) | c.offset for c in trace.chunks("offset", size=size)]
    np.testing.assert_array_equal(np.concatenate(found), address)
    assert len(np.unique(trace.pages)) == len(trace.pages) == len(set(pages))
    assert all(chunk.offset is None for chunk in trace.chunks())


def test_a_compressed_file_of_addresses(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(0, 1 << 20, 64, dtype=np.uint64))
    packed = tmp_path / "b.npy.zst"
    packed.write_bytes(zstandard.compress((tmp_path / "a.npy").read_bytes()))
    plain, found = open_trace(tmp_path / "a.npy"), open_trace(packed)
    assert (found.name, found.digest()) == ("b", plain.digest())
    assert [c.page.tolist() for c in found.chunks()] == [c.page.tolist() for c in plain.chunks()]


def test_whole_addresses():
    """Neither 32 nor 48 bits are enough: kernel halves, 57-bit addresses, and pages 4 GiB and more apart."""
    address = np.array(
        [0, 1 << 32, 0xFF11000000000123, 0xFF91000000000FFF, 0xFFFFC90000000000, 2**64 - 1], np.uint64
    )
    raw = Raw("t", lambda size: iter([RawChunk(address)]), frozenset(), lambda: "")
    trace = encoded(raw)
    (chunk,) = trace.chunks("offset")
    assert [int(trace.pages[p]) << 12 | int(o) for p, o in zip(chunk.page, chunk.offset, strict=True)] == [
        int(each) for each in address
    ]
    assert len(trace.pages) == 6


@pytest.mark.skipif(bool(os.environ.get("NUMBA_DISABLE_JIT")), reason="takes minutes uncompiled")
def test_a_long_file_takes_little_memory(tmp_path):
    """48 M addresses are 366 MiB on disk; reading them takes a small part of that beyond what numba takes."""
    path = tmp_path / "a.npy"
    count = 48 << 20
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<u8", "fortran_order": False, "shape": (count,)}
        )
        part = np.uint64(0xFFFF888000000000) + np.arange(1 << 20, dtype=np.uint64) * np.uint64(1037)
        for _ in range(count >> 20):
            part.tofile(file)
    code = f"""
import numpy as np, resource
from pagewalk.trace.open import open_trace
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
np.save({str(tmp_path / "small.npy")!r}, np.arange(9, dtype=np.uint64))
list(open_trace({str(tmp_path / "small.npy")!r}).chunks())
before = peak()
trace = open_trace({str(path)!r})
records = sum(len(chunk.page) for chunk in trace.chunks("offset"))
print(records, (peak() - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    records, mib = map(int, done.stdout.split())
    assert records == count
    assert mib < 120


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("size", [1, 999, 1024, 1 << 20])
def test_a_raw_trace_reads_the_same_each_time(monkeypatch, tmp_path, kept, size):
    """Whether its columns are kept, or there is no folder to keep them in and it is read again."""
    rng = np.random.default_rng(1)
    address = rng.integers(0, 1 << 24, 5000).astype(np.uint64)
    flags, cpu = (rng.integers(0, 3, 5000).astype(np.uint8) for _ in range(2))
    readings = []

    def read(most):
        readings.append(most)
        for start in range(0, 5000, most):
            part = slice(start, start + most)
            yield RawChunk(address[part], flags[part], cpu[part])

    monkeypatch.setenv("TMPDIR", str(tmp_path if kept else tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", None if kept else str(tmp_path / "missing"))
    trace = encoded(Raw("t", read, frozenset({"flags", "cpu"}), lambda: ""))
    for _ in range(2):
        chunks = list(trace.chunks("flags", "cpu", size=size))
        assert [c.start for c in chunks] == list(range(0, 5000, size))
        found = trace.pages[np.concatenate([c.page for c in chunks])]
        np.testing.assert_array_equal(found, address >> np.uint64(12))
        np.testing.assert_array_equal(np.concatenate([c.flags for c in chunks]), flags)
        np.testing.assert_array_equal(np.concatenate([c.cpu for c in chunks]), cpu)
    (chunk,) = trace.chunks("offset", size=5000)
    np.testing.assert_array_equal(chunk.offset, address & np.uint64(0xFFF))
    assert len(readings) == (2 if kept else 4)
    assert not list(tmp_path.iterdir())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 25), st.booleans(), st.integers(0, 9))
def test_chunks_are_gathered_and_nothing_moves(records, size, least, cpus, seed):
    """Pieces of a chunk put together again are that chunk: every column, every event at its place."""
    draw = np.random.default_rng(seed)
    events = np.zeros(draw.integers(0, 8), EVENT)
    events["position"] = np.sort(draw.integers(0, records + 1, len(events)))
    events["start"] = np.arange(len(events))
    whole = RawChunk(
        draw.integers(0, 1 << 63, records).astype(np.uint64),
        draw.integers(0, 64, records).astype(np.uint8),
        draw.integers(0, 4, records).astype(np.uint8) if cpus else None,
        events=events,
    )
    joined = [
        RawChunk(*(None if column is None else column.copy() for column in chunk))
        for chunk in gathered(pieces(whole, size), least)
    ]
    assert all(len(chunk.address) >= least for chunk in joined[:-1])
    (again,) = gathered(joined, records + 1) if joined else (RawChunk(whole.address[:0], whole.flags),)
    assert again.address.tolist() == whole.address.tolist()
    assert again.flags.tolist() == whole.flags.tolist()
    assert (again.cpu is None) == (not cpus or not joined)
    assert not joined or not cpus or again.cpu.tolist() == whole.cpu.tolist()
    assert (again.events is None) == (not len(events))
    assert again.events is None or again.events.tolist() == events.tolist()
