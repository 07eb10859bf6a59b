"""Sweeps: the rows are those of single replays, resumed or spread over processes, one of them killed."""

import os
import signal
import subprocess
import sys
import threading
import time

import msgspec
import pytest

from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.replay.engine import replay
from pagewalk.study.replays import subject
from pagewalk.study.sweep.grid import cells, changed, read
from pagewalk.study.sweep.run import sweep

TRACE = "synth:zipf?size=16M&accesses=20000&seed=2"
GRID = f"""
schema = "pagewalk.sweep/1"
traces = ["{TRACE}"]
machines = ["textbook-setassoc", "arm-neoverse-v2"]
[vary]
"memory.latency_cycles" = [100, 300]
"walker.start_cycles" = [0, 9]
"""


def without_times(rows):
    return [{key: value for key, value in row.items() if key != "replay_seconds"} for row in rows]


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    return read(tmp_path / "grid.toml")


def test_rows_are_those_of_single_replays(grid, tmp_path):
    rows = sweep(grid, tmp_path / "out")
    assert len(rows) == 16
    opened = subject(TRACE)
    for row in rows[::5]:
        changes = {key: row[key] for key in grid.vary}
        machine = changed(load(row["machine"]), changes)
        assert machine.memory.latency_cycles == row["memory.latency_cycles"]
        found = replay(opened.trace, opened.mapped(row["mapping"], machine), machine)
        assert {key: row[key] for key in found.counts} == found.counts
        assert row["walk_cycles"] == found.cycles["walk"]
    assert len((tmp_path / "out" / "cells.csv").read_text().splitlines()) == 17


def test_a_cut_sweep_resumes(grid, tmp_path):
    whole = sweep(grid, tmp_path / "whole")
    cut = tmp_path / "cut"
    cut.mkdir()
    lines = (tmp_path / "whole" / "cells.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "cells.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    done = []
    assert without_times(sweep(grid, cut, progress=done.append)) == without_times(whole)
    assert done[0] == 5
    assert sum(done) == 16
    keys = [msgspec.json.decode(line)["cell"] for line in (cut / "cells.jsonl").read_bytes().splitlines()]
    assert sorted(keys) == sorted({row["cell"] for row in whole})


def test_impossible_machines_are_rows_with_an_error(tmp_path):
    text = GRID.replace('"walker.start_cycles" = [0, 9]', '"tlb.STLB.ways" = [12, 7]')
    (tmp_path / "grid.toml").write_text(text.replace(', "arm-neoverse-v2"', ""))
    rows = sweep(read(tmp_path / "grid.toml"), tmp_path / "out")
    assert [("error" in row) for row in rows] == [row["tlb.STLB.ways"] == 7 for row in rows]
    assert all("ways" in row["error"] for row in rows if "error" in row)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema", "scheme", "scheme"),
        ('["textbook-setassoc", "arm-neoverse-v2"]', "[]", "machines is empty"),
        ("[100, 300]", "{a = 1}", "vary"),
        ("[100, 300]", "[]", "latency_cycles is empty"),
        ("[0, 9]", str(list(range(500_000))), "cells"),
        ("traces = [", "traces = [[", "not TOML"),
    ],
)
def test_bad_grids(tmp_path, old, new, said):
    (tmp_path / "grid.toml").write_text(GRID.replace(old, new))
    with pytest.raises(BadInput, match=said):
        read(tmp_path / "grid.toml")


def test_a_field_that_is_none(grid):
    with pytest.raises(BadInput, match="no such field"):
        changed(load("textbook-setassoc"), {"tlb.STLB.colour": 1})
    assert len({cell.key for cell in cells(grid)}) == 16


def test_damaged_rows_are_named(grid, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cells.jsonl").write_text('{"cell": "x"}\nnonsense\n')
    with pytest.raises(BadInput, match="line 2"):
        sweep(grid, tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker(grid, tmp_path):
    """Two worker processes, one killed in mid-run: nothing is lost, nothing counted twice."""
    distributed = pytest.importorskip("distributed")
    here = without_times(sweep(grid, tmp_path / "here"))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        victim = client.run(os.getpid)[client.scheduler_info()["workers"].copy().popitem()[0]]
        killer = threading.Thread(target=lambda: (time.sleep(0.3), os.kill(victim, signal.SIGKILL)))
        killer.start()
        spread = without_times(sweep(grid, tmp_path / "spread", client.get_executor()))
        killer.join()
    assert spread == here
    lines = (tmp_path / "spread" / "cells.jsonl").read_bytes().splitlines()
    assert len(lines) == len({msgspec.json.decode(line)["cell"] for line in lines}) == 16


def test_the_command_refuses_a_scheduler_that_is_not_there(tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "grid.toml").write_text(GRID)
    command = ["-m", "pagewalk", "sweep", str(tmp_path / "grid.toml"), "--scheduler", "nonsense://x"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
