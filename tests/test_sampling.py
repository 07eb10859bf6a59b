"""Sampling: the warm-up restores the past, the intervals hold what a whole replay finds."""

import json
from pathlib import Path

import numpy as np
import pytest

from pagewalk.cli import main
from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.linux.mapping import map_trace
from pagewalk.replay.engine import replay
from pagewalk.study.replays import Subject, subject
from pagewalk.study.sampling import CELLS, LEAST_CELL, LEAST_CELL_UNSURE, PARTS, estimates, sample, sampled
from pagewalk.trace.store.write import write_trace
from pagewalk.trace.trace import EVENT, FETCH, FLUSH_ALL, SWITCH, from_pages

SHARED = Path(__file__).parent.parent.parent / "shared" / "traces"
LRU = load("textbook-setassoc")
RECORDS = 2 * PARTS * CELLS * LEAST_CELL + 4321


def skewed(seed, records=RECORDS, distinct=6000, **columns):
    """Pages with a few hot ones, in a stream whose hot pages change once."""
    chance = np.random.default_rng(seed)
    rank = (distinct * chance.random(records) ** 6).astype(np.uint32)
    rank[records // 2 :] = distinct - 1 - rank[records // 2 :]
    pages = np.uint64(0xFFFF_C900_0000_0) + chance.permutation(distinct).astype(np.uint64)
    return from_pages("skewed", pages, rank, **columns)


def events(*happened):
    table = np.zeros(len(happened), EVENT)
    for row, (position, kind, cpu) in zip(table, happened, strict=True):
        row["position"], row["kind"], row["cpu"] = position, kind, cpu
    return table


def l1_misses_in_windows(trace, taken, mapping):
    """Of a whole replay, counted in the records that the windows have."""
    found = []
    replay(trace, mapping, LRU, on_misses=lambda l1, stlb: found.append(l1.copy()))
    at = np.concatenate(found)
    return [int(((start <= at) & (at < start + taken.length)).sum()) for start in taken.start.tolist()]


@pytest.mark.parametrize(
    "trace",
    [
        skewed(1),
        skewed(2, events=events(*((place, FLUSH_ALL, -1) for place in range(10_000, RECORDS, 77_777)))),
        skewed(
            3,
            cpu=(np.arange(RECORDS) // 1000 % 3).astype(np.uint8),
            events=events(*((place, FLUSH_ALL, place % 3) for place in range(10_000, RECORDS, 50_003))),
        ),
    ],
    ids=["plain", "flushes", "CPUs and flushes"],
)
def test_an_lru_cache_is_left_just_as_the_whole_past_would_have_left_it(trace):
    """Every access counts for the recency of L1, so its misses in windows are exactly those of a replay."""
    mapping = map_trace(trace.pages, None, "base")
    taken = sample(trace, [LRU], seed=5)
    series = replay(taken.trace, mapping, LRU).windows
    assert series.accesses_per_window == taken.cell
    found = np.array(series.l1_misses).reshape(PARTS, CELLS)[:, 1:].sum(axis=1)
    assert found.tolist() == l1_misses_in_windows(trace, taken, mapping)
    assert found.min() > 0


def test_intervals_hold_what_the_whole_replay_finds():
    """In 95 of 100 cases; the figures of one sample hang together, so we ask for 85."""
    machines = [load(name) for name in ("textbook-setassoc", "textbook-fullassoc")]
    held = []
    for number in range(3):
        whole = Subject(skewed(10 + number), None, 0.0)
        for seed in range(3):
            found = sampled(whole, machines, ["base", "pmd"], seed=seed, check=True)
            for estimate, exact in zip(found.estimates, found.checked, strict=True):
                for name in ("l1_misses", "stlb_misses"):
                    figure = getattr(estimate, name)
                    assert figure.certain <= exact[name]
                    held.append(figure.low <= exact[name] <= figure.high)
    assert len(held) == 72
    assert np.mean(held) >= 0.85


def test_first_touches_are_known_exactly():
    """A trace that touches every page once and then stays on one: all misses are first touches."""
    page = np.minimum(np.arange(RECORDS) // 100, 16_000).astype(np.uint32)
    distinct = int(page.max()) + 1
    trace = from_pages("once", np.uint64(0xFFFF_C900_0000_0) + np.arange(distinct, dtype=np.uint64), page)
    mapping = map_trace(trace.pages, None, "base")
    taken = sample(trace, [LRU])
    found = estimates(taken, replay(taken.trace, mapping, LRU), mapping, LRU)
    assert found.l1_misses.certain == found.stlb_misses.certain == distinct
    whole = replay(trace, mapping, LRU).counts
    assert whole["stlb_misses"] == distinct
    assert found.stlb_misses.value == found.stlb_misses.low == distinct


def test_machines_that_are_not_lru_get_longer_windows():
    records = 2 * PARTS * CELLS * LEAST_CELL_UNSURE
    trace = skewed(4, records)
    assert sample(trace, [LRU]).cell == LEAST_CELL
    skylake = load("intel-skylake-sp")
    taken = sample(trace, [LRU, skylake])
    assert taken.cell == LEAST_CELL_UNSURE
    mapping = map_trace(trace.pages, None, "base")
    found = estimates(taken, replay(taken.trace, mapping, skylake), mapping, skylake)
    exact = sum(replay(trace, mapping, skylake).windows.stlb_misses)
    assert found.stlb_misses.low <= exact <= found.stlb_misses.high


def test_fetches_have_a_past_of_their_own():
    chance = np.random.default_rng(6)
    flags = np.where(chance.random(RECORDS) < 0.3, FETCH, 0).astype(np.uint8)
    trace = skewed(7, flags=flags)
    taken = sample(trace, [LRU])
    chunk = next(taken.trace.chunks("flags"))
    warm_up = chunk.flags[: taken.cell] & FETCH
    start = int(taken.start[0])
    before = next(trace.chunks("flags", size=RECORDS))
    for kind in (0, FETCH):
        mine = before.flags[:start] & FETCH == kind
        pages, last = np.unique(before.page[:start][mine][::-1], return_index=True)
        order = pages[np.argsort(-last)]
        assert chunk.page[: taken.cell][warm_up == kind].tolist()[-len(order) :][-50:] == order.tolist()[-50:]


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        (
            skewed(8, records=10_000),
            "10000 records are too few to sample 2 %; replay it whole, or bring 3276800",
        ),
        (skewed(9, events=events((5, SWITCH, 0))), "has context switches; replay it whole"),
    ],
)
def test_what_cannot_be_sampled_says_so(trace, told):
    with pytest.raises(BadInput, match=told):
        sample(trace, [LRU])


def test_the_command(tmp_path, monkeypatch, capsys):
    write_trace(skewed(1), tmp_path / "t")
    words = [
        "sample",
        str(tmp_path / "t"),
        "-m",
        "textbook-setassoc",
        "--check",
        "--json",
        str(tmp_path / "x.json"),
    ]
    monkeypatch.setattr("sys.argv", ["pagewalk", *words])
    main()
    shown = capsys.readouterr().out
    assert "page walks" in shown and "yes" in shown
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["schema"] == "pagewalk.sample/1"
    whole = subject(tmp_path / "t")
    counts = replay(whole.trace, whole.mapped("base", LRU), LRU).counts
    assert found["checked"][0] == {
        "l1_misses": counts["l1_dtlb_misses"],
        "stlb_misses": counts["stlb_misses"],
    }


@pytest.mark.skipif(not SHARED.exists(), reason="the shared traces are not here")
@pytest.mark.parametrize("name", ["gitdiff", "fdtable"])
def test_on_real_kernels(name):
    machines = [load(each) for each in ("textbook-setassoc", "intel-skylake-sp")]
    found = sampled(subject(SHARED / name), machines, ["base", "pmd"], seed=1, check=True)
    for estimate, exact in zip(found.estimates, found.checked, strict=True):
        for figure in ("l1_misses", "stlb_misses"):
            bounds = getattr(estimate, figure)
            assert bounds.low <= exact[figure] <= bounds.high
    base = found.estimates[0].stlb_misses
    assert base.high - base.low < 0.25 * base.value  # the interval says something
