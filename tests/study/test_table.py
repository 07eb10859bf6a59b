"""Results as tables: the same figures, in every library that is installed."""

import sys

import pytest

import fakes
from pagewalk.study import table
from pagewalk.study.table import (
    caller_rows,
    region_rows,
    replay_rows,
    to_arrow,
    to_pandas,
    to_polars,
    window_rows,
)

RESULT = fakes.several_machines(2)
ROWS = (replay_rows, region_rows, window_rows, caller_rows)


@pytest.mark.parametrize("rows", ROWS)
def test_rows_are_flat_and_of_one_shape(rows):
    found = rows(RESULT)
    assert found
    assert len({tuple(row) for row in found}) == 1
    assert all(isinstance(value, str | int | float) for row in found for value in row.values())


def test_figures_are_those_of_the_result():
    first, replay = replay_rows(RESULT)[0], RESULT.replays[0]
    assert (first["trace"], first["machine"], first["mapping"]) == ("gitdiff-small", replay.machine, "base")
    assert first["walks"] == replay.counts["walks"]
    assert first["cycles.walk"] == replay.cycles["walk"]
    assert first["in.L2"] == replay.walk_refs_in["L2"]
    assert len(region_rows(RESULT)) == sum(len(replay.by_region) for replay in RESULT.replays)
    windows = [
        row for row in window_rows(RESULT) if (row["machine"], row["mapping"]) == (replay.machine, "base")
    ]
    assert sum(row["walk_cycles"] for row in windows) == sum(replay.windows.walk_cycles)
    assert windows[1]["start"] == replay.windows.accesses_per_window


def test_what_one_machine_has_not_is_zero():
    mixed = fakes.result(fakes.replay(levels=("L1D", "memory"), weights=(1, 1)), fakes.replay("pmd"))
    assert replay_rows(mixed)[0]["in.L3"] == 0
    assert replay_rows(mixed)[1]["in.L3"] > 0


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("library", "make"), [("pandas", to_pandas), ("polars", to_polars), ("pyarrow", to_arrow)]
)
def test_every_library_gets_the_same(rows, library, make):
    pytest.importorskip(library)
    frame = make(RESULT, rows)
    expected = rows(RESULT)
    if library == "pandas":
        assert frame.to_dict("records") == expected
    elif library == "polars":
        assert frame.to_dicts() == expected
    else:
        assert frame.to_pylist() == expected


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="pip install polars"):
        to_polars(RESULT)
    assert table.replay_rows(RESULT), "the rows need no library"
