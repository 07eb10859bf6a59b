"""Cut a trace: by records, addresses, regions, kinds and CPUs, against masks over whole columns."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.cli import main
from pagewalk.errors import BadInput
from pagewalk.trace.cut import KINDS, Wanted, cut
from pagewalk.trace.open import open_trace
from pagewalk.trace.store.write import write_trace
from pagewalk.trace.trace import EVENT, FETCH, FLUSH_ALL, STORE, SWITCH, from_pages

EDGES = [
    0,
    0x1000,
    0x1800,
    0x7FFF_FFFF_F000,
    0xFF11_0000_0000_0800,
    0xFFFF_C900_0000_1000,
    0xFFFF_FFFF_FFFF_F000,
]
"""Addresses on and within pages of the whole 64 bits: user and kernel, four levels and five."""


def records(trace):
    """Whole columns: address, flags, cpu and space of each record."""
    chunks = list(trace.chunks("offset", "flags", "cpu", size=97))
    page = np.concatenate([np.zeros(0, np.uint32), *(c.page for c in chunks)])
    columns = {"page": trace.pages[page]}
    columns |= {
        name: np.concatenate([np.zeros(0, int), *(getattr(c, name) for c in chunks)])
        for name in trace.columns
    }
    if trace.spaces is not None:
        columns["space"] = trace.spaces[page]
    assert [c.start for c in chunks] == np.cumsum([0, *(len(c.page) for c in chunks)])[:-1].tolist()
    assert len(page) == trace.accesses
    return columns


@st.composite
def traces(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pages = np.unique(np.array(EDGES, np.uint64) >> np.uint64(12))
    pages = random.permutation(np.append(pages, np.arange(2, 12, dtype=np.uint64)))
    count = draw(st.integers(1, 400))
    offset = random.choice([0, 0x7FF, 0x800, 0xFFF], count).astype(np.uint16)
    flags = random.choice([0, STORE, FETCH, STORE | FETCH, 0x13], count).astype(np.uint8)
    cpu = random.integers(0, 3, count).astype(np.uint8)
    events = np.zeros(6, EVENT)
    events["position"] = np.sort(random.integers(0, count + 1, 6))
    events["kind"] = random.choice([FLUSH_ALL, SWITCH], 6)
    events["cpu"] = random.integers(-1, 3, 6)
    events["start"] = np.arange(6)  # tells them apart
    events["end"] = 6
    spaces = random.integers(0, 3, len(pages)).astype(np.uint16)
    page = random.integers(0, len(pages), count).astype(np.uint32)
    return from_pages("t", pages, page, offset=offset, flags=flags, cpu=cpu, spaces=spaces, events=events)


BOUNDS = st.tuples(st.sampled_from(EDGES), st.sampled_from([0x1801, 0x8000, 0xFFFF_C900_0000_2000, 1 << 64]))
RANGES = st.lists(BOUNDS.filter(lambda pair: pair[0] < pair[1]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(
    trace=traces(),
    ranges=RANGES,
    kinds=st.sets(st.sampled_from(KINDS), min_size=1),
    cpus=st.none() | st.sets(st.integers(0, 1), min_size=1),
    data=st.data(),
)
def test_what_is_left_is_what_a_mask_leaves(trace, ranges, kinds, cpus, data):
    if cpus is not None and max(cpus) >= trace.cpus:
        return
    first = data.draw(st.integers(0, trace.accesses - 1))
    end = data.draw(st.integers(first + 1, trace.accesses))
    pages = np.array(data.draw(st.lists(st.booleans(), min_size=len(trace.pages), max_size=len(trace.pages))))
    some_pages = data.draw(st.booleans())
    whole = records(trace)
    mask = np.array(
        [
            first <= at < end
            and (not ranges or any(low <= (int(page) << 12 | int(offset)) < high for low, high in ranges))
            and ("fetch" if flags & FETCH else "store" if flags & STORE else "load") in kinds
            and (cpus is None or cpu in cpus)
            and (not some_pages or pages[trace.pages.tolist().index(page)])
            for at, (page, offset, flags, cpu) in enumerate(
                zip(whole["page"], whole["offset"], whole["flags"], whole["cpu"], strict=True)
            )
        ]
    )
    wanted = Wanted(
        tuple(ranges),
        pages if some_pages else None,
        frozenset(kinds),
        None if cpus is None else frozenset(cpus),
    )
    if not mask.any():
        with pytest.raises(BadInput, match="no such records"):
            cut(trace, first, end, wanted)
        return
    part = cut(trace, first, end, wanted)
    left = records(part)
    assert left.keys() == whole.keys()
    for name, column in whole.items():
        np.testing.assert_array_equal(left[name], column[mask])
    assert len(part.pages) == len({*zip(left["page"].tolist(), left["space"].tolist(), strict=True)})
    expected = [
        (int(mask[: event["position"]].sum()), int(event["start"]))
        for event in trace.events
        if first <= event["position"]
        and (event["position"] < end or end == trace.accesses)
        and (cpus is None or event["cpu"] < 0 or event["cpu"] in cpus)
    ]
    assert [(int(e["position"]), int(e["start"])) for e in part.events] == expected
    assert part.cpus == trace.cpus
    only_page = next(part.chunks(size=1 << 20))
    assert (only_page.offset, only_page.flags, only_page.cpu) == (None, None, None)


def test_a_trace_without_columns():
    """No flags: all are loads. No offsets: only whole pages can be told apart."""
    trace = from_pages("t", np.array([1, 2], np.uint64), np.array([0, 1, 1], np.uint32))
    assert cut(trace, wanted=Wanted(kinds=frozenset({"load"}))).accesses == 3
    with pytest.raises(BadInput, match="no such records"):
        cut(trace, wanted=Wanted(kinds=frozenset({"store", "fetch"})))
    assert cut(trace, wanted=Wanted(((0x1000, 0x1800), (0x1800, 0x2000)))).accesses == 1
    with pytest.raises(BadInput, match="no offsets"):
        cut(trace, wanted=Wanted(((0x1000, 0x1800),)))


def test_parts_have_digests_of_their_own():
    trace = from_pages("t", np.arange(2, dtype=np.uint64), np.array([0, 1], np.uint32), digest=lambda: "d")
    parts = [Wanted(((0, 8192),)), *(Wanted(pages=np.array([first, not first])) for first in (True, False))]
    assert len({cut(trace, wanted=each).digest() for each in [None, *parts]}) == 4


# ---------------------------------------------------------------- the command


@pytest.fixture
def convert(monkeypatch, capsys, tmp_path):
    """Call ``pagewalk trace convert`` to a new folder; (exit status, folder, last line of standard error)."""

    def call(trace, *options):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        monkeypatch.setattr(sys, "argv", ["pagewalk", "trace", "convert", str(trace), str(out), *options])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("compiling")]
        assert status == 0 or (status == 2 and len(said) == 1 and not out.exists())
        return status, out, said[-1]

    return call


def test_regions_of_the_sample_are_those_that_info_shows(convert):
    """Counts of the areas by caller, from regions.json and the columns with numpy alone."""
    sample = open_trace("sample:gitdiff")
    areas = json.loads((sample.origin / "regions.json").read_text())
    status, out, _ = convert("sample:gitdiff", "--region", "alloc_large_system_hash", "--kinds", "load")
    assert status == 0
    address = sample.pages << np.uint64(12)
    inside = np.zeros(len(address), bool)
    for area in areas:
        if (area["caller"] or "").startswith("alloc_large_system_hash+"):
            inside |= (address >= int(area["start"], 16)) & (address < int(area["end"], 16))
    expected = sum(
        int((inside[chunk.page] & (chunk.flags & (FETCH | STORE) == 0)).sum())
        for chunk in sample.chunks("flags")
    )
    part = open_trace(out)
    assert part.accesses == expected > 10_000
    assert (out / "regions.json").read_bytes() == (sample.origin / "regions.json").read_bytes()
    assert set(part.pages.tolist()) <= set(sample.pages[inside].tolist())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--range", "1000-1000"], "is empty"),
        (["--range", "2000-1000"], "is empty"),
        (["--range", "0-20000000000000000"], "leaves 64 bits"),
        (["--range", "0x1000"], "no range"),
        (["--range", "-1-5"], "no range"),
        (["--range", "\u0661000-2000"], "no range"),
        (["--range", "5000-6000"], "no such records"),
        (["--region", "nowhere"], "no region 'nowhere'; it has user"),
        (["--region", ""], "no region ''"),
        (["--kinds", "read"], "names no kind"),
        (["--kinds", ""], "names no kind"),
        (["--kinds", "store"], "no such records"),
        (["--cpu", "1"], "no CPU 1; it has CPU 0 only"),
        (["--cpu", "-1"], "--cpu"),
        (["--records", "\u0661:\u0662"], "no range"),
        (["--records", ":0"], "no records 0:0"),
    ],
)
def test_what_cannot_be_cut_says_so_in_one_line(convert, tmp_path, options, said):
    np.save(tmp_path / "a.npy", np.arange(0x1000, 0x1100, 8, dtype=np.uint64))
    status, _, line = convert(tmp_path / "a.npy", *options)
    assert status == 2
    assert said in line


def test_fuzzed_options_never_fail_but_in_one_line(convert, tmp_path):
    """400 random texts for each option that takes text; `convert` above asserts one line or success."""
    np.save(tmp_path / "a.npy", np.arange(0x1000, 0x1100, 8, dtype=np.uint64))
    random = np.random.default_rng(1)
    letters = [*"0123456789abcdefxX-:, \n\0\u0661\ud7ff/%{}", "load", "user", "0x", "1000", "f" * 16]
    refused = 0
    for option in ("--range", "--region", "--kinds", "--records"):
        for _ in range(400):
            text = "".join(random.choice(letters, random.integers(0, 8)))
            refused += convert(tmp_path / "a.npy", f"{option}={text}")[0] == 2
    assert refused > 1000


def test_cut_of_several_processes_keeps_them(convert, tmp_path):
    events = np.zeros(2, EVENT)
    events["position"], events["kind"], events["cpu"], events["space"] = [0, 3], SWITCH, 1, [1, 2]
    trace = from_pages(
        "t",
        np.array([1, 1, 0xFFFF_C900_0000_0], np.uint64),
        np.array([0, 2, 0, 1, 2, 1], np.uint32),
        offset=np.zeros(6, np.uint16),
        cpu=np.array([0, 0, 1, 1, 0, 1], np.uint8),
        spaces=np.array([1, 2, 0], np.uint16),
        events=events,
    )
    write_trace(trace, tmp_path / "whole")
    status, out, _ = convert(Path(tmp_path / "whole"), "--cpu", "1", "--range", "0-0x2000")
    assert status == 0
    part = records(open_trace(out))
    assert part["page"].tolist() == [1, 1, 1]
    assert part["space"].tolist() == [1, 2, 2]
    assert part["cpu"].tolist() == [1, 1, 1]
    assert open_trace(out).events["position"].tolist() == [0, 1]
