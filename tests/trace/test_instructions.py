"""How many instructions a trace stands for: counted, told by a recorder, or unknown."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pagewalk.hardware.load import load
from pagewalk.report import sure
from pagewalk.study.compare import comparisons
from pagewalk.study.replays import Subject, replays, result
from pagewalk.trace.instructions import instructions
from pagewalk.trace.open import open_raw, open_trace
from pagewalk.trace.store.write import write_stream
from pagewalk.trace.trace import FETCH, STORE, from_addresses
from places import OUTSIDE, TEST_DATA

LACKEY = TEST_DATA / "formats" / "true.lackey"
TRACES = OUTSIDE / "traces"

COUNTERS = {
    "insn_kernel": 900,
    "insn_user": 100,
    "load_kernel_half": 200,
    "store_kernel_half": 100,
    "load_user_half": 30,
    "store_user_half": 20,
}


def recorded(records, **about):
    """A trace of `records` accesses, every third of them a fetch of a new code page."""
    flags = np.zeros(records, np.uint8)
    flags[::3], flags[1::3] = FETCH, STORE
    trace = from_addresses("made up", np.arange(records, dtype=np.uint64) << np.uint64(12), flags=flags)
    return replace(trace, about={"plugin_counters_whole_window": COUNTERS, **about})


def test_a_real_lackey_file_has_as_many_as_it_has_lines_of_them():
    lines = sum(line.startswith("I ") for line in LACKEY.read_text().splitlines())
    assert instructions(open_trace(LACKEY)) == (lines, "a fetch for each")


def test_it_is_kept_when_a_trace_is_converted(tmp_path):
    raw = open_raw(LACKEY)
    write_stream(raw.read(500), tmp_path / "kept", about=raw.about)
    assert instructions(open_trace(tmp_path / "kept")) == instructions(open_trace(LACKEY))


def test_a_whole_window_is_told_by_its_counter():
    """450 records, 150 of them fetches: 300 loads and stores, as the counters say. So 900 instructions."""
    assert instructions(recorded(450)) == (900, "of the kernel, by the recorder's counters")


def test_a_part_of_a_window_is_an_estimate():
    """45 records, 30 of them loads and stores: a tenth of the window's 300."""
    found = instructions(recorded(45))
    assert found.number == 90
    assert found.told_by.endswith("an estimate: 3.00 for each access")


def test_with_the_user_half_both_count():
    """1000 instructions on 350 accesses; 30 are here."""
    assert instructions(recorded(45, user_half_included=True)).number == round(1000 * 30 / 350)


@pytest.mark.parametrize(
    "about",
    [
        None,
        {},
        {"plugin_counters_whole_window": {}},
        {"plugin_counters_whole_window": [1]},
        {"fetches": "some"},
    ],
)
def test_what_is_not_told_is_unknown(about):
    assert instructions(replace(recorded(45), about=about)).number is None


def test_counters_of_nothing_are_unknown():
    nothing = dict.fromkeys(COUNTERS, 0)
    assert instructions(recorded(45, plugin_counters_whole_window=nothing)).number is None


def test_misses_for_1000_instructions():
    """64 pages, all cold: 64 misses on 3 instructions for each page."""
    about = {"plugin_counters_whole_window": COUNTERS}
    pages = np.arange(64, dtype=np.uint64) << np.uint64(12)
    trace = replace(from_addresses("cold", pages), about=about)
    opened, machine = Subject(trace, None, 0.0), load("textbook-setassoc")
    found = result(opened, [machine], replays(opened, [machine], ["base", "pmd"]))
    assert found.trace.instructions == 192
    (mpki,) = [m for m in comparisons(found)[0].measures if m.unit == "per 1000 instructions"]
    assert mpki.values == (1000 * 64 / 192, 1000 * 1 / 192)
    unknown = result(
        replace(opened, trace=replace(trace, about=None)), [machine], replays(opened, [machine], ["base"])
    )
    assert "unknown" in sure.instructions(unknown.trace)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the shared traces are not beside the project")
@pytest.mark.parametrize("name", ["fdtable", "bpfhash"])
def test_recordings_of_whole_windows_have_the_counter(name):
    counters = json.loads((TRACES / name / "meta.json").read_text())["plugin_counters_whole_window"]
    assert instructions(open_trace(TRACES / name)).number == counters["insn_kernel"]
