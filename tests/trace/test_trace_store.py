"""The trace folder: what is written is what is read, by us and by others' tools."""

import hashlib
import io
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.errors import BadInput
from pagewalk.trace.cut import cut
from pagewalk.trace.encode import RawChunk
from pagewalk.trace.open import open_trace
from pagewalk.trace.store.write import FEW, ColumnWriter, write_stream, write_trace
from pagewalk.trace.trace import EVENT, FLUSH_RANGE, SWITCH, Chunk, Trace, from_pages
from places import OUTSIDE

SHARED = OUTSIDE / "traces"
OPTIONAL = ("offset", "flags", "cpu")


def columns(trace: Trace, size: int = 1 << 20) -> dict[str, np.ndarray]:
    """All records of a trace at once."""
    chunks = list(trace.chunks(*OPTIONAL, size=size))
    assert [c.start for c in chunks] == list(np.cumsum([0, *(len(c.page) for c in chunks)]))[: len(chunks)]
    assert all(len(c.page) == size for c in chunks[:-1])
    names = ["page", *sorted(trace.columns)]
    return {name: np.concatenate([np.empty(0, int), *(getattr(c, name) for c in chunks)]) for name in names}


def same(one: Trace, other: Trace, size: int = 1 << 20) -> None:
    """Two traces have the same records, told apart by page and space, not by number."""
    a, b = columns(one), columns(other, size)
    assert a.keys() == b.keys()
    for name in a:
        if name == "page":
            np.testing.assert_array_equal(one.pages[a["page"]], other.pages[b["page"]])
        else:
            np.testing.assert_array_equal(a[name], b[name])
    assert (one.accesses, one.page_shift, one.cpus) == (other.accesses, other.page_shift, other.cpus)
    for name in ("spaces", "events"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_array_equal(left, right)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Any trace: few pages or many, any set of columns."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    distinct = draw(st.sampled_from([1, 2, 300, 65_536, 65_537]))
    pages = random.permutation(
        np.uint64(0xFFFFC90000000) + np.arange(distinct, dtype=np.uint64) * np.uint64(7)
    )
    count = draw(st.integers(0, 5000))
    given = draw(st.sets(st.sampled_from(OPTIONAL)))
    limits = {
        "offset": (4096, np.uint16),
        "flags": (64, np.uint8),
        "cpu": (draw(st.integers(1, 256)), np.uint8),
    }
    optional = {name: random.integers(0, limits[name][0], count).astype(limits[name][1]) for name in given}
    events = None
    if draw(st.booleans()):
        events = np.zeros(3, EVENT)
        events["position"] = np.sort(random.integers(0, count + 1, 3))
        events["kind"] = [FLUSH_RANGE, SWITCH, FLUSH_RANGE]
        events["end"] = [4096, 0, 8192]
    spaces = random.integers(0, 3, distinct).astype(np.uint16) if draw(st.booleans()) else None
    page = random.integers(0, distinct, count).astype(np.uint32)
    return from_pages("t", pages, page, spaces=spaces, events=events, **optional)


@settings(max_examples=60, deadline=None)
@given(trace=traces(), compress=st.booleans(), size=st.integers(1, 3000))
def test_what_is_written_is_read(tmp_path_factory, trace, compress, size):
    target = tmp_path_factory.mktemp("trace") / "t"
    write_trace(trace, target, compress=compress)
    opened = open_trace(target)
    same(trace, opened, size)
    assert opened.name == "t"
    assert opened.origin == target
    assert opened.columns == trace.columns
    assert len(opened.digest()) == 64


def test_a_column_that_is_not_asked_for_is_not_given(tmp_path):
    trace = from_pages(
        "t", np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.uint32), flags=np.zeros(4, np.uint8)
    )
    write_trace(trace, tmp_path / "t")
    (chunk,) = open_trace(tmp_path / "t").chunks("offset")
    assert (chunk.offset, chunk.flags, chunk.cpu) == (None, None, None)
    (chunk,) = open_trace(tmp_path / "t").chunks("offset", "flags")
    assert chunk.flags is not None
    assert chunk.offset is None


def test_other_tools_read_our_columns(tmp_path):
    """numpy.load after the zstd program, or after any zstd library; no code of ours."""
    random = np.random.default_rng(3)
    pages, page = np.arange(100_000, dtype=np.uint64), random.integers(0, 100_000, 200_000).astype(np.uint32)
    offset = random.integers(0, 4096, 200_000).astype(np.uint16)
    write_trace(from_pages("t", pages, page, offset=offset), tmp_path / "t")
    for name, expected in (("page", page), ("offset", offset)):
        compressed = (tmp_path / "t" / f"{name}.npy.zst").read_bytes()
        reader = zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True)
        np.testing.assert_array_equal(np.load(io.BytesIO(reader.read())), expected)
        if program := shutil.which("zstd"):
            found = subprocess.run(
                [program, "-qdc"], input=compressed, capture_output=True, check=True
            ).stdout
            np.testing.assert_array_equal(np.load(io.BytesIO(found)), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "t" / "pages.npy"), pages)


def test_the_digest_is_that_of_the_content(tmp_path):
    trace = from_pages("t", np.arange(4, dtype=np.uint64), np.array([0, 1, 2, 3], np.uint32))
    write_trace(trace, tmp_path / "packed")
    write_trace(trace, tmp_path / "plain", compress=False)
    other = from_pages("t", np.arange(4, dtype=np.uint64), np.array([0, 1, 3, 2], np.uint32))
    write_trace(other, tmp_path / "other")
    packed, plain, changed = (open_trace(tmp_path / name).digest() for name in ("packed", "plain", "other"))
    assert packed == plain != changed


def test_content_that_changed_after_writing_is_noticed(tmp_path):
    trace = from_pages("t", np.arange(4, dtype=np.uint64), np.array([0, 1, 2, 3], np.uint32))
    write_trace(trace, tmp_path / "t", compress=False)
    column = tmp_path / "t" / "page.npy"
    content = bytearray(column.read_bytes())
    content[-2] = 2
    column.write_bytes(content)
    with pytest.raises(BadInput, match=r"page\.npy: its content is not what meta\.json noted"):
        open_trace(tmp_path / "t").digest()


@pytest.mark.parametrize("compress", [True, False], ids=["packed", "plain"])
def test_sums_are_those_of_the_files_as_they_lie(tmp_path, compress):
    """As sha256sum prints them; whatever byte of whatever file is changed, one line names the file."""
    page = np.tile(np.arange(4, dtype=np.uint32), 50)
    trace = from_pages("t", np.arange(4, dtype=np.uint64), page, flags=np.zeros(200, np.uint8))
    folder = tmp_path / "t"
    write_trace(trace, folder, compress=compress)
    noted = json.loads((folder / "meta.json").read_text())["sha256"]
    files = {path for path in folder.iterdir() if path.name != "meta.json"}
    assert noted == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for path in files:
        content = path.read_bytes()
        for at in range(len(content)):
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
            with pytest.raises(BadInput) as error:
                open_trace(folder).digest()
            assert path.name in str(error.value)
        path.write_bytes(content)
    assert len(open_trace(folder).digest()) == 64


def test_sums_of_earlier_versions_hold(tmp_path):
    """They are of the content, under the name that it has without compression."""
    write_trace(from_pages("t", np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.uint32)), tmp_path / "t")
    meta = json.loads((tmp_path / "t" / "meta.json").read_text())
    compressed = (tmp_path / "t" / "page.npy.zst").read_bytes()
    content = zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True).read()
    meta["sha256"] = {"page.npy": hashlib.sha256(content).hexdigest()}
    (tmp_path / "t" / "meta.json").write_text(json.dumps(meta))
    assert len(open_trace(tmp_path / "t").digest()) == 64
    meta["sha256"]["page.npy"] = "0" * 64
    (tmp_path / "t" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(BadInput, match=r"page\.npy\.zst: its content is not what"):
        open_trace(tmp_path / "t").digest()


def test_a_file_that_was_not_copied_along_is_missed(tmp_path):
    """Without its flags every record would count as a load."""
    trace = from_pages(
        "t", np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.uint32), flags=np.full(4, 8, np.uint8)
    )
    write_trace(trace, tmp_path / "t")
    (tmp_path / "t" / "flags.npy.zst").rename(tmp_path / "flags.npy.zst")
    with pytest.raises(BadInput, match=r"meta\.json: notes a file 'flags\.npy\.zst' that is not here"):
        open_trace(tmp_path / "t")
    np.save(tmp_path / "t" / "flags.npy", np.full(4, 8, np.uint8))
    assert open_trace(tmp_path / "t").columns == {"flags"}


def test_a_layout_is_carried_along(tmp_path):
    write_trace(from_pages("t", np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.uint32)), tmp_path / "a")
    (tmp_path / "a" / "regions.json").write_text("[]")
    (tmp_path / "a" / "meminfo.txt").write_text("MemTotal: 1 kB")
    (tmp_path / "a" / "something.else").write_text("not ours")
    write_trace(open_trace(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "b" / "regions.json").read_text() == "[]"
    assert (tmp_path / "b" / "meminfo.txt").read_text() == "MemTotal: 1 kB"
    assert not (tmp_path / "b" / "something.else").exists()
    (tmp_path / "b" / "regions.json").write_text("[] ")
    with pytest.raises(BadInput, match=r"regions\.json"):
        open_trace(tmp_path / "b").digest()


def test_an_existing_target_stays(tmp_path):
    trace = from_pages("t", np.arange(1, dtype=np.uint64), np.zeros(1, np.uint32))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("file", "link", "folder"):
        with pytest.raises(BadInput, match="exists already"):
            write_trace(trace, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, BadInput("x", "damaged"), RuntimeError])
def test_a_broken_off_writing_leaves_nothing(tmp_path, fault):
    def read(wanted, size):
        yield Chunk(0, np.zeros(1000, np.uint32))
        raise fault

    trace = Trace("t", np.zeros(1, np.uint64), 2000, read)
    with pytest.raises(fault if isinstance(fault, type) else type(fault)):
        write_trace(trace, tmp_path / "t")
    assert not list(tmp_path.iterdir())

    def chunks():
        yield RawChunk(np.zeros(1000, np.uint64))
        raise fault

    with pytest.raises(fault if isinstance(fault, type) else type(fault)):
        write_stream(chunks(), tmp_path / "t")
    assert not list(tmp_path.iterdir())


def test_a_stream_without_accesses_is_no_trace(tmp_path):
    with pytest.raises(BadInput, match="no access at all"):
        write_stream(iter(()), tmp_path / "t")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_column_is_closed_only_when_no_thread_writes_to_it(tmp_path, monkeypatch, error):
    """An interrupt while one thread still compresses: its compressor must not be flushed meanwhile."""
    said, really_close = [], ColumnWriter.close

    def close(self):
        said.append("closed")
        really_close(self)

    def write(self, records):
        if self.path.name.startswith("page"):
            raise error
        time.sleep(0.2)
        said.append("written")

    monkeypatch.setattr(ColumnWriter, "write", write)
    monkeypatch.setattr(ColumnWriter, "close", close)
    address = np.zeros(FEW, np.uint64)
    with pytest.raises((KeyboardInterrupt, OSError, BadInput)):
        write_stream(iter([RawChunk(address, address.astype(np.uint8))]), tmp_path / "t")
    assert said[-3:] == ["closed"] * 3 and said.count("closed") == 3
    assert said.count("written") == 2


def test_a_target_that_cannot_be_made(tmp_path):
    trace = from_pages("t", np.arange(1, dtype=np.uint64), np.zeros(1, np.uint32))
    with pytest.raises(BadInput, match="cannot be written"):
        write_trace(trace, tmp_path / "missing" / "t")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    distinct=st.sampled_from([1, 40, 65_536, 65_537, 70_000]),
    cuts=st.lists(st.integers(0, 200_000), max_size=4),
    flags=st.booleans(),
    cpu=st.booleans(),
)
def test_a_stream_is_numbered_as_it_comes(tmp_path_factory, seed, distinct, cuts, flags, cpu):
    """More than 2^16 pages turn up in mid-stream: the page column goes on wider."""
    random = np.random.default_rng(seed)
    table = random.integers(0, 1 << 52, distinct).astype(np.uint64)
    address = np.concatenate([table, random.choice(table, 200_000 - distinct)]) << np.uint64(12)
    address |= random.integers(0, 4096, len(address)).astype(np.uint64)
    extra = {"flags": random.integers(0, 64, len(address)).astype(np.uint8)} if flags else {}
    extra |= {"cpu": random.integers(0, 5, len(address)).astype(np.uint8)} if cpu else {}
    edges = [0, *sorted(cuts), len(address)]
    chunks = [
        RawChunk(address[a:b], **{k: v[a:b] for k, v in extra.items()}) for a, b in itertools.pairwise(edges)
    ]
    target = tmp_path_factory.mktemp("stream") / "t"
    write_stream(chunks, target)
    trace = open_trace(target)
    found = columns(trace)
    np.testing.assert_array_equal(
        trace.pages[found["page"]] << np.uint64(12) | found["offset"].astype(np.uint64), address
    )
    assert trace.columns == {"offset", *extra}
    for name, expected in extra.items():
        np.testing.assert_array_equal(found[name], expected)
    first = np.sort(np.unique(address >> np.uint64(12), return_index=True)[1])
    np.testing.assert_array_equal(trace.pages, address[first] >> np.uint64(12))
    wide = json.loads((target / "meta.json").read_text())["records"], len(trace.pages) > 65_536
    assert wide == (200_000, distinct > 65_536)


@settings(max_examples=40, deadline=None)
@given(trace=traces(), data=st.data())
def test_a_part_is_the_whole_between_two_records(trace, data):
    if not trace.accesses:
        with pytest.raises(BadInput):
            cut(trace, 0, 0)
        return
    first = data.draw(st.integers(0, trace.accesses - 1))
    end = data.draw(st.integers(first + 1, trace.accesses))
    part = cut(trace, first, end)
    whole, found = columns(trace), columns(part)
    np.testing.assert_array_equal(part.pages[found["page"]], trace.pages[whole["page"][first:end]])
    for name in trace.columns:
        np.testing.assert_array_equal(found[name], whole[name][first:end])
    assert len(part.pages) == len(np.unique(found["page"]))
    if trace.spaces is not None:
        np.testing.assert_array_equal(part.spaces[found["page"]], trace.spaces[whole["page"][first:end]])
    if trace.events is not None:
        position = trace.events["position"]
        kept = trace.events[(position >= first) & ((position < end) | (end == trace.accesses))]
        np.testing.assert_array_equal(part.events["position"] + np.uint64(first), kept["position"])
        np.testing.assert_array_equal(part.events[["kind", "start", "end"]], kept[["kind", "start", "end"]])


@pytest.mark.parametrize("bounds", [(-1, 3), (3, 3), (3, 2), (0, 11), (10, 11)])
def test_there_is_no_such_part(bounds):
    trace = from_pages("t", np.arange(1, dtype=np.uint64), np.zeros(10, np.uint32))
    with pytest.raises(BadInput, match=r"no records .*0:10"):
        cut(trace, *bounds)


def independent(folder: Path) -> dict[str, np.ndarray]:
    """A recorded folder as its recorder's own reader (ktrace.py) reads it: whole columns, numpy.load."""
    found = {}
    for name in ("page", "offset", "flags"):
        compressed = (folder / f"{name}.npy.zst").read_bytes()
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(compressed)
        found[name] = np.load(io.BytesIO(reader.read()))
    return found


@pytest.mark.skipif(not SHARED.exists(), reason="recorded traces are not here")
@pytest.mark.parametrize("name", ["gitdiff-small", "gitdiff", "fdtable", "bpfhash"])
def test_recorded_folders_are_read_unchanged(name):
    expected = independent(SHARED / name)
    trace = open_trace(SHARED / name)
    meta = json.loads((SHARED / name / "meta.json").read_text())
    assert trace.accesses == meta["stats"]["records"]
    assert trace.about["kernel"] == meta["kernel"]
    np.testing.assert_array_equal(trace.pages, np.load(SHARED / name / "pages.npy"))
    for chunk in trace.chunks("offset", "flags"):
        here = slice(chunk.start, chunk.start + len(chunk.page))
        for column in expected:
            assert np.array_equal(getattr(chunk, column), expected[column][here])


@pytest.mark.skipif(not SHARED.exists(), reason="recorded traces are not here")
def test_the_sample_is_the_beginning_of_the_recording():
    expected = independent(SHARED / "gitdiff")
    sample = open_trace("sample:gitdiff")
    pages = np.load(SHARED / "gitdiff" / "pages.npy")
    for chunk in sample.chunks("offset", "flags"):
        here = slice(chunk.start, chunk.start + len(chunk.page))
        assert np.array_equal(sample.pages[chunk.page], pages[expected["page"][here]])
        assert np.array_equal(chunk.offset, expected["offset"][here])
        assert np.array_equal(chunk.flags, expected["flags"][here])
    for name in ("regions.json", "leaf.npy", "leaf_end.npy", "meminfo.txt", "buddyinfo.txt"):
        assert (sample.origin / name).read_bytes() == (SHARED / "gitdiff" / name).read_bytes()


def test_the_sample_is_whole():
    sample = open_trace("sample:gitdiff")
    assert sample.accesses == 1 << 24
    assert len(sample.digest()) == 64
    with pytest.raises(BadInput, match="there are: gitdiff"):
        open_trace("sample:nothing")
