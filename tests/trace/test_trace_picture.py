"""The picture of a trace: what it counts, against whole columns, and what it says."""

import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.cli import main
from pagewalk.report import style
from pagewalk.report.trace.picture import figure, message
from pagewalk.trace.density import BANDS, COLUMNS, density
from pagewalk.trace.trace import FETCH, from_pages

HIGHEST = (1 << 52) - 1
PAGES = st.one_of(
    st.integers(0, HIGHEST),
    st.integers(0xFFFFC90000000, 0xFFFFC90000000 + 3000),
    st.integers(0, 30).map(lambda number: number << 20),
    st.sampled_from([0, HIGHEST, 0xFF11000000000]),
)


@st.composite
def traces(draw):
    pages = np.array(draw(st.lists(PAGES, min_size=1, max_size=60, unique=True)), np.uint64)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    page = random.integers(0, len(pages), draw(st.integers(1, 1500))).astype(np.uint32)
    return from_pages("t", pages, page, flags=random.choice([0, FETCH], len(page)).astype(np.uint8))


@settings(max_examples=150, deadline=None)
@given(trace=traces())
def test_bands_hold_every_page_and_cells_every_record(trace):
    seen = density(trace)
    assert 1 <= len(seen.bands) <= BANDS
    (chunk,) = trace.chunks("flags")
    assert seen.records.tolist() == np.bincount(chunk.page, minlength=len(trace.pages)).tolist()
    assert seen.pages.sum() == len(trace.pages)
    expected = np.zeros(seen.count.shape, int)
    for at, number in enumerate(chunk.page.tolist()):
        address = int(trace.pages[number]) << 12
        (band,) = [each for each in seen.bands if each.start <= address < each.end]
        assert seen.bands[seen.band_of_page[number]] is band
        row = band.first_row + (address - band.start) * band.rows // (band.end - band.start)
        expected[row, at * COLUMNS // trace.accesses] += 1
    for low, high in zip(seen.bands, seen.bands[1:], strict=False):
        assert high.start - low.end >= 2 << 20
        assert high.first_row == low.first_row + low.rows
    np.testing.assert_array_equal(seen.count, expected)


@settings(max_examples=100, deadline=None)
@given(trace=traces())
def test_distances_are_those_of_a_list_of_pages(trace):
    (chunk,) = trace.chunks("flags")
    recent: list[int] = []
    expected = [0] * (len(trace.pages) + 1)
    for page, flags in zip(chunk.page.tolist(), chunk.flags.tolist(), strict=True):
        if flags & FETCH:
            continue
        expected[recent.index(page) if page in recent else -1] += 1
        recent = [page, *(other for other in recent if other != page)]
    assert density(trace).depths.tolist() == expected


def test_the_title_says_how_far_back_accesses_reach():
    """100 pages round and round, 50 times: always one of the last 100, but for the first round (2 %)."""
    page = np.tile(np.arange(100, dtype=np.uint32), 50)
    trace = from_pages("t", np.arange(100, dtype=np.uint64), page)
    assert message(density(trace), 4096) == "Of the data accesses, 2.00 % touch a page for the first time"
    trace = from_pages("t", np.arange(100, dtype=np.uint64), np.tile(page, 4))
    assert message(density(trace), 4096).startswith(
        "99 % of data accesses go to one of the last 100 pages (400 "
    )
    fetched = from_pages(
        "t", np.arange(100, dtype=np.uint64), page, flags=np.full(len(page), FETCH, np.uint8)
    )
    assert message(density(fetched), 4096) == "Instruction fetches only"


def test_regions_apart_by_tebibytes_have_bands_of_their_own():
    """User, five-level and four-level kernel addresses: each band starts at its own whole address."""
    starts = [0x5555_0000_0000, 0xFF11_0000_0000_0000, 0xFFFF_C900_0000_0000, 0xFFFF_FFFF_FFFF_F000]
    pages = np.array(starts, np.uint64) >> np.uint64(12)
    trace = from_pages("t", pages, np.arange(4, dtype=np.uint32))
    assert [band.start for band in density(trace).bands] == starts
    texts = {text.get_text() for axes in figure(trace, None, density(trace)).axes for text in axes.texts}
    assert {f"{start:#x} + 4 KiB" for start in starts} <= texts
    assert {"user", "vmalloc space", "other"} <= texts


@pytest.mark.parametrize(
    "page",
    [np.zeros(1, np.uint32), np.zeros(100, np.uint32), np.arange(3000, dtype=np.uint32)],
    ids=["one record", "one page", "each page once"],
)
@pytest.mark.parametrize("kind", [0, FETCH])
def test_every_trace_can_be_drawn(tmp_path, page, kind):
    pages = np.uint64(0xFFFFC90000000) + np.arange(int(page.max()) + 1, dtype=np.uint64)
    trace = from_pages("t$_{x}$ <&>", pages, page, flags=np.full(len(page), kind, np.uint8))
    with style.drawing():
        figure(trace, None, density(trace)).savefig(tmp_path / "t.svg")
    assert "t$_{x}$ <&>" in "".join(ET.parse(tmp_path / "t.svg").getroot().itertext())


def test_the_command(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "a.npy", np.arange(0, 1 << 22, 64, dtype=np.uint64))
    for name, head in (("a.svg", b"<?xml"), ("a.png", b"\x89PNG")):
        words = ["trace", "info", str(tmp_path / "a.npy"), "--plot", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", ["pagewalk", *words])
        main()
        assert (tmp_path / name).read_bytes().startswith(head)
    for wrong in (tmp_path / "a.npy" / "a.png", tmp_path / "a.pdf"):
        monkeypatch.setattr(sys, "argv", ["pagewalk", *words[:-1], str(wrong)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert not wrong.exists()
