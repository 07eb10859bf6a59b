"""Layouts of trace folders: what is read, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.layout import LEAF_RUN, caller_symbol, check_runs, read_layout

X86 = GEOMETRIES["x86-64"]
VMALLOC = 0xFFFFC90000000000
RECORD = {
    "start": "0xffffc90000000000",
    "end": "0xffffc90000005000",
    "bytes": 20480,
    "caller": "kernel_clone+0x94/0x3e0",
    "module": None,
    "kind": "vmalloc",
    "pages": 4,
    "nodes": {"N0": 3, "N1": 1},
    "at_begin": True,
    "at_end": True,
    "leaf_4k": 4,
    "leaf_2m": 0,
    "mapping": "4K",
    "is_stack": True,
}
RUN = (VMALLOC, 0x1000, 4, 12, 1, 0, 1)


def write(folder, records=(RECORD,), runs=(RUN,)):
    (folder / "regions.json").write_text(json.dumps(list(records)))
    np.save(folder / "leaf.npy", np.array(list(runs), LEAF_RUN))
    return folder


def test_a_folder_is_read(tmp_path):
    later = RECORD | {"start": "0xffffc90000000000", "kind": None, "mapping": "none", "at_begin": False}
    big = RECORD | {
        "start": "0xffffc90000200000",
        "end": "0xffffc90000401000",
        "bytes": 2101248,
        "mapping": "2M",
    }
    layout = read_layout(write(tmp_path, [big, RECORD, later]))
    assert [(a.start, a.leaf, a.kind, a.at_begin) for a in layout.areas] == [
        (VMALLOC, "base", "vmalloc", True),
        (VMALLOC, "", "", False),
        (VMALLOC + 0x200000, "PMD", "vmalloc", True),
    ]
    first = layout.areas[0]
    assert (first.caller, first.nodes, first.pages, first.is_stack) == (
        "kernel_clone",
        ((0, 3), (1, 1)),
        4,
        True,
    )
    assert layout.payload_bytes(first) == 16384
    assert layout.runs.tolist() == [RUN]
    assert len(layout.runs_end) == 0


def test_a_folder_without_a_layout(tmp_path):
    assert read_layout(tmp_path) is None


def test_runs_are_sorted(tmp_path):
    low, high = (VMALLOC, 0x9000, 1, 12, 0, 0, 0), (VMALLOC + 4096, 0x1000, 1, 12, 0, 0, 0)
    assert read_layout(write(tmp_path, [], [high, low])).runs.tolist() == [low, high]


def test_caller_symbol():
    assert caller_symbol("alloc_large_system_hash+0x197/0x27c") == "alloc_large_system_hash"
    assert caller_symbol("unpurged vm_area") == "unpurged vm_area"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": "ffffc90000000000"}, r"\$\[1\]\.start"),
        ({"start": "0xffffc9000000000000"}, r"\$\[1\]\.start"),
        ({"start": "0x"}, r"\$\[1\]\.start"),
        ({"end": "0xzz"}, r"\$\[1\]\.end"),
        ({"end": "0xffffc90000000000"}, "not above start"),
        ({"start": "0xffffc90000000800"}, "not aligned"),
        ({"bytes": 0}, "bytes 0"),
        ({"bytes": -4096}, "bytes -4096"),
        ({"bytes": 1 << 62}, "does not fit"),
        ({"bytes": "20480"}, r"Expected `int`.*\$\[1\]\.bytes"),
        ({"bytes": 20480.5}, r"\$\[1\]\.bytes"),
        ({"mapping": "1G"}, r"\$\[1\]\.mapping.*4K, 2M, none"),
        ({"is_stack": 1}, r"\$\[1\]\.is_stack"),
        ({"nodes": {"0": 1}}, r"\$\[1\]\.nodes"),
        ({"nodes": {"N0": -1}}, r"\$\[1\]\.nodes"),
        ({"pages": -1}, r"\$\[1\]\.pages"),
        ({"kind": 7}, r"\$\[1\]\.kind"),
        ({"start": "0xffffc90000601000", "end": "0xffffc90000603000", "bytes": 8192}, "overlap"),
    ],
)
def test_bad_region(tmp_path, change, says):
    good = RECORD | {"start": "0xffffc90000600000", "end": "0xffffc90000605000"}
    with pytest.raises(BadInput, match=says) as caught:
        read_layout(write(tmp_path, [good, RECORD | change]))
    assert "regions.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["start", "end", "bytes", "caller", "kind", "mapping", "is_stack"])
def test_missing_key(tmp_path, key):
    with pytest.raises(BadInput, match=rf"`{key}`.*\$\[0\]"):
        read_layout(write(tmp_path, [{k: v for k, v in RECORD.items() if k != key}]))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{}", b"[1]", b"[[]]", b"\xff", b"[{}]", b"null", b"[" * 100_000, b'[{"start": 1e999}]'],
)
def test_regions_that_are_no_list_of_regions(tmp_path, text):
    (tmp_path / "regions.json").write_bytes(text)
    with pytest.raises(BadInput, match=r"regions\.json"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([(VMALLOC, 0, 1, 13, 0, 0, 0)], r"12, 21, 30"),
        ([(VMALLOC, 0, 1, 200, 0, 0, 0)], r"12, 21, 30"),
        ([(VMALLOC, 0, 0, 12, 0, 0, 0)], "count"),
        ([(VMALLOC + 4096, 0, 1, 21, 0, 0, 0)], "aligned"),
        ([(VMALLOC, 4096, 1, 21, 0, 0, 0)], "aligned"),
        ([(VMALLOC, 0, 2**32 - 1, 30, 0, 0, 0)], "above the highest address"),
        ([(0, (1 << 52) - 4096, 2, 12, 0, 0, 0)], "52 bits"),
        ([(VMALLOC, 0, 2, 12, 0, 0, 0), (VMALLOC + 4096, 0, 1, 12, 0, 0, 0)], "overlaps"),
    ],
)
def test_bad_runs(tmp_path, runs, says):
    with pytest.raises(BadInput, match=says) as caught:
        read_layout(write(tmp_path, [], runs))
    assert "leaf.npy" in str(caught.value)


def test_the_last_page_of_all_may_be_mapped():
    top = np.array([((1 << 64) - 4096, 0, 1, 12, 0, 0, 0)], LEAF_RUN)
    assert len(check_runs(top, X86, "test")) == 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, np.uint64),
        np.zeros((2, 2), LEAF_RUN),
        np.zeros((), LEAF_RUN),
        np.zeros(3, np.dtype([("va", "<u8"), ("pa", "<u8")])),
    ],
)
def test_a_leaf_table_of_another_kind(tmp_path, array):
    np.save(tmp_path / "leaf.npy", array)
    with pytest.raises(BadInput, match="va, pa, count, shift"):
        read_layout(tmp_path)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "leaf_end.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(BadInput, match=r"leaf_end\.npy"):
        read_layout(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_folder_is_read_or_refused(tmp_path_factory, data):
    """Cut a file short or change bytes of it: a layout or BadInput, nothing else."""
    folder = write(tmp_path_factory.mktemp("layout"))
    path = folder / data.draw(st.sampled_from(["regions.json", "leaf.npy"]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read_layout(folder)
    except BadInput as refusal:
        assert "\n" not in str(refusal)
