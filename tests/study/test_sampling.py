"""Sampling: the warm-up restores the past, the intervals hold what a whole replay finds."""

import json

import numpy as np
import pytest

from pagewalk.cli import main
from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.kernels.trace.recency import EVENTFUL, FAR, FETCHED, FIRST, NEVER, STRATA, note
from pagewalk.linux.mapping import map_trace
from pagewalk.replay.engine import replay
from pagewalk.study.replays import Subject, subject
from pagewalk.study.sampling import windows
from pagewalk.study.sampling.answer import sampled
from pagewalk.study.sampling.estimate import estimates, interval
from pagewalk.study.sampling.windows import PARTS, sample
from pagewalk.trace.store.write import write_trace
from pagewalk.trace.trace import EVENT, FETCH, FLUSH_ALL, SWITCH, UNMAP, from_pages
from places import OUTSIDE

SHARED = OUTSIDE / "traces"
LRU = load("textbook-setassoc")
SHORT = 4096
"""Lead-ins and windows of these tests."""
RECORDS = 4 * PARTS * SHORT + 4321
VMALLOC = np.uint64(0xFFFF_C900_0000_0)


@pytest.fixture(autouse=True)
def short(request, monkeypatch):
    """A quarter of the usual sample, but for real traces."""
    if "real" not in request.node.name:
        for figure in ("LEAD_IN", "LEAD_IN_UNSURE", "LEAST"):
            monkeypatch.setattr(windows, figure, SHORT)


def skewed(seed, records=RECORDS, distinct=6000, **columns):
    """Pages with a few hot ones, in a stream whose hot pages change once."""
    chance = np.random.default_rng(seed)
    rank = (distinct * chance.random(records) ** 6).astype(np.uint32)
    rank[records // 2 :] = distinct - 1 - rank[records // 2 :]
    return from_pages("skewed", VMALLOC + chance.permutation(distinct).astype(np.uint64), rank, **columns)


def on(page, **columns):
    """A trace of pages by number."""
    pages = VMALLOC + np.arange(int(page.max()) + 1, dtype=np.uint64)
    return from_pages("t", pages, page.astype(np.uint32), **columns)


def events(*happened):
    table = np.zeros(len(happened), EVENT)
    for row, (position, kind, cpu, *rest) in zip(table, happened, strict=True):
        row["position"], row["kind"], row["cpu"] = position, kind, cpu
        if rest:
            row["space"], row["start"], row["end"] = rest
    return table


def burst(records=RECORDS):
    """Seventy hot pages; after six tenths of the trace, for a hundredth of it, 2000 pages round and round."""
    page = (70 * np.random.default_rng(1).random(records) ** 3).astype(np.int64)
    start, length = 6 * records // 10, records // 100
    page[start : start + length] = 100 + np.arange(length) % 2000
    return on(page)


def in_step(records=RECORDS):
    """A fiftieth of the trace, a stretch of the sample, begins with a sweep and goes on at random."""
    page = (6000 * np.random.default_rng(2).random(records) ** 6).astype(np.int64)
    sweeps = np.arange(records) % (records // PARTS) < records // PARTS // 5
    page[sweeps] = np.arange(sweeps.sum()) % 5000
    return on(page)


def unmappings(records=RECORDS):
    chance = np.random.default_rng(4)
    start = (VMALLOC + chance.integers(0, 6000, records // 9000).astype(np.uint64)) << np.uint64(12)
    happened = [
        (9000 * number, UNMAP, -1, 0, first, first + np.uint64(1 << 15)) for number, first in enumerate(start)
    ]
    return on((6000 * chance.random(records) ** 3).astype(np.int64), events=events(*happened))


def processes(records=RECORDS):
    """Seven address spaces take turns; half of their accesses go to pages that all share."""
    chance = np.random.default_rng(5)
    turn = np.resize([1, 2, 3, 1, 2, 4, 5, 6, 7], records // 20_000 + 1)
    own = (np.repeat(turn, 20_000)[:records] - 1) * 300 + chance.integers(0, 300, records)
    page = np.where(chance.random(records) < 0.5, own, 2100 + chance.integers(0, 900, records))
    spaces = np.append(np.repeat(np.arange(1, 8), 300), np.zeros(900)).astype(np.uint16)
    pages = np.append(np.tile(np.arange(300, dtype=np.uint64), 7), VMALLOC + np.arange(900, dtype=np.uint64))
    happened = [(20_000 * number, SWITCH, 0, space, 0, 0) for number, space in enumerate(turn)]
    return from_pages("t", pages, page.astype(np.uint32), spaces=spaces, events=events(*happened))


WORKLOADS = {
    "sweep": lambda: on(np.arange(RECORDS) // 7 % 1600),
    "chase": lambda: on(np.resize(np.random.default_rng(3).permutation(20_000), RECORDS)),
    "dense": lambda: on(np.arange(RECORDS) // 3 % 65_536),
    "hot page": lambda: on(
        np.random.default_rng(8).integers(0, 9000, RECORDS) * (np.arange(RECORDS) % 1000 < 3)
    ),
    "phase": lambda: skewed(1),
    "burst": burst,
    "in step": in_step,
    "unmappings": unmappings,
    "processes": processes,
}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_intervals_hold_what_the_whole_replay_finds(workload):
    """A little is allowed for warm-ups that leave a second level only nearly as it was."""
    machines = [LRU] if workload != "processes" else [LRU, load("intel-ice-lake-sp")]
    found = sampled(Subject(WORKLOADS[workload](), None, 0.0), machines, ["base", "pmd"], seed=3, check=True)
    for estimate, exact in zip(found.estimates, found.checked, strict=True):
        for name in ("l1_misses", "stlb_misses"):
            figure = getattr(estimate, name)
            slack = 0.002 * exact[name]
            assert figure.certain <= exact[name]
            assert figure.low - slack <= exact[name] <= figure.high + slack
            assert figure.low <= figure.value <= figure.high


def test_what_no_window_saw_widens_the_interval():
    """No window lies in the burst, whose accesses all miss; they are known not to be like others."""
    trace = burst()
    mapping = map_trace(trace.pages, None, "base")
    for seed in range(20):
        taken = sample(trace, [(LRU, mapping)], seed=seed)
        start = 6 * RECORDS // 10
        if not (
            (taken.windows.start < start + RECORDS // 100)
            & (taken.windows.start + taken.windows.stratum.shape[1] > start)
        ).any():
            break
    found = estimates(taken, mapping, LRU).stlb_misses
    exact = replay(trace, mapping, LRU).counts["stlb_misses"]
    assert exact > 8000
    assert found.high >= exact
    assert found.low < exact / 2


def l1_misses_in_windows(trace, taken, mapping):
    """Of a whole replay, counted in the records that the windows have."""
    found = []
    replay(trace, mapping, LRU, on_misses=lambda l1, stlb: found.append(l1.copy()))
    at = np.concatenate(found)
    return [
        int(((start <= at) & (at < start + taken.windows.stratum.shape[1])).sum())
        for start in taken.windows.start.tolist()
    ]


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
        processes(),
    ],
    ids=["plain", "flushes", "CPUs and flushes", "switches"],
)
def test_an_lru_cache_is_left_just_as_the_whole_past_would_have_left_it(trace):
    """Every access counts for the recency of L1, so its misses in windows are exactly those of a replay."""
    mapping = map_trace(trace.pages, None, "base", spaces=trace.spaces)
    taken = sample(trace, [(LRU, mapping)], seed=5)
    missed = []
    replay(taken.trace, mapping, LRU, on_misses=lambda l1, stlb: missed.append(l1.copy()))
    at = np.concatenate(missed)
    found = [
        int(((start <= at) & (at < start + taken.windows.stratum.shape[1])).sum())
        for start in taken.windows.at.tolist()
    ]
    assert found == l1_misses_in_windows(trace, taken, mapping)
    assert min(found) > 0


def test_strata_are_how_long_ago_a_page_was_accessed_before():
    """Against a dictionary, with an event in the middle."""
    chance = np.random.default_rng(6)
    page, fetch, cpu = (chance.integers(0, n, 5000) for n in (300, 2, 3))
    last, first = np.full((3, 2, 300), -1), np.full((3, 2, 300), NEVER)
    count, happened, strata = np.zeros(STRATA, np.int64), np.zeros(3, np.int64), []
    far, kept = np.zeros((8, 4), np.int64), np.zeros(1, np.int64)
    for part in (slice(0, 2000), slice(2000, 5000)):
        out = np.empty(part.stop - part.start, np.uint8)
        columns = page[part].astype(np.uint32), fetch[part].astype(np.uint8), cpu[part].astype(np.uint8)
        note(*columns, part.start, last, first, happened, out, count, far, kept)
        happened[1] = 2000
        strata += out.tolist()
    before: dict[tuple[int, ...], int] = {}
    for now, key in enumerate(zip(cpu.tolist(), fetch.tolist(), page.tolist(), strict=True)):
        expected = (now - before[key]).bit_length() if key in before else FIRST
        expected += EVENTFUL if key[0] == 1 and key in before and before[key] < 2000 <= now else 0
        assert strata[now] == expected + FETCHED * key[1]
        before[key] = now
    assert count.tolist() == np.bincount(strata, minlength=STRATA).tolist()
    long_ago = [at for at, stratum in enumerate(strata) if stratum % FETCHED % EVENTFUL >= FAR]
    assert kept[0] == len(long_ago)
    assert sorted(far[:, 0].tolist()) == long_ago[-8:]
    assert all(page[at] == which and cpu[at] == who and fetch[at] == how for at, who, how, which in far)


def test_windows_alike_by_strata_leave_nothing_open():
    """All accesses of one stratum miss, none of the other, in any mixture: the total follows."""
    seen = np.array([[900, 100], [500, 500], [990, 10]] * 10)
    value, low, high = interval(seen * [0, 1], seen, np.array([2_400_000, 600_000]))
    assert value == 600_000
    assert 598_000 < low <= value <= high < 602_000


def test_a_stratum_that_no_window_has_may_miss_or_not():
    seen = np.array([[1000, 0]] * 30)
    value, low, high = interval(seen * 0, seen, np.array([60_000, 5000]))
    assert low == value == 0
    assert 5000 <= high < 5100


def test_first_touches_are_known_exactly():
    """A trace that touches every page once and then stays on one: all misses are first touches."""
    trace = on(np.minimum(np.arange(RECORDS) // 100, 16_000))
    mapping = map_trace(trace.pages, None, "base")
    found = estimates(sample(trace, [(LRU, mapping)]), mapping, LRU)
    distinct = len(trace.pages)
    assert found.l1_misses.certain == found.stlb_misses.certain == distinct
    assert replay(trace, mapping, LRU).counts["stlb_misses"] == distinct
    assert found.stlb_misses.value == found.stlb_misses.low == distinct


def test_machines_that_are_not_lru_get_a_longer_lead_in(monkeypatch):
    trace, skylake = skewed(4, 2 * RECORDS), load("intel-skylake-sp")
    mapping = map_trace(trace.pages, None, "base")
    monkeypatch.setattr(windows, "LEAD_IN_UNSURE", 3 * SHORT)
    short, long = (sample(trace, cells) for cells in ([(LRU, mapping)], [(LRU, mapping), (skylake, mapping)]))
    assert long.trace.accesses - short.trace.accesses > 40 * 2 * SHORT
    for taken in (short, long):
        assert (taken.windows.start[1:] - taken.windows.start[:-1] >= taken.windows.stratum.shape[1]).all()
    found = estimates(long, mapping, skylake)
    exact = sum(replay(trace, mapping, skylake).windows.stlb_misses)
    assert found.stlb_misses.low * 0.998 <= exact <= found.stlb_misses.high * 1.002


def test_a_warm_up_ends_with_the_last_accesses_in_their_order():
    """Data and fetches share the first level here: of each page, its last access, of whichever kind."""
    chance = np.random.default_rng(6)
    trace = skewed(7, flags=np.where(chance.random(RECORDS) < 0.3, FETCH, 0).astype(np.uint8))
    taken = sample(trace, [(LRU, map_trace(trace.pages, None, "base"))])
    begun, at = int(taken.early.start[0]), int(taken.early.at[0])
    warm_up, whole = (next(each.chunks("flags", size=RECORDS)) for each in (taken.trace, trace))
    found, past = (
        list(zip(chunk.page[:end].tolist(), (chunk.flags[:end] & FETCH).tolist(), strict=True))[::-1]
        for chunk, end in ((warm_up, at), (whole, begun))
    )
    latest = [dict(reversed(each)) for each in (found, past)]
    order = [list(dict.fromkeys(page for page, _ in each))[:1500] for each in (found, past)]
    assert order[0] == order[1]
    assert [latest[0][page] for page in order[0]] == [latest[1][page] for page in order[1]]


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        (
            skewed(8, records=10_000),
            f"10000 records are too few to sample 2 %; replay it whole, or bring {RECORDS - 4321}",
        ),
        (
            skewed(9, events=events(*((place, SWITCH, 0, 1, 0, 0) for place in range(0, RECORDS, 100)))),
            "more than 1000 flushes and switches in a sample; replay it whole",
        ),
    ],
)
def test_what_cannot_be_sampled_says_so(trace, told, monkeypatch):
    monkeypatch.setattr(windows, "MOST_EVENTS", 1000)
    with pytest.raises(BadInput, match=told):
        sample(trace, [(LRU, map_trace(trace.pages, None, "base"))])


def test_the_command(tmp_path, monkeypatch, capsys):
    write_trace(skewed(1), tmp_path / "t")
    options = ["-m", "textbook-setassoc", "--check", "--json", str(tmp_path / "x.json")]
    monkeypatch.setattr("sys.argv", ["pagewalk", "sample", str(tmp_path / "t"), *options])
    main()
    shown = capsys.readouterr().out
    assert "page walks" in shown and "yes" in shown
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["schema"] == "pagewalk.sample/1"
    assert found["confidence"] == 0.95
    assert "warmed up" in found["method"]
    whole = subject(tmp_path / "t")
    counts = replay(whole.trace, whole.mapped("base", LRU), LRU).counts
    assert found["checked"][0] == {
        "l1_misses": counts["l1_dtlb_misses"],
        "stlb_misses": counts["stlb_misses"],
    }


@pytest.mark.skipif(not SHARED.exists(), reason="the shared traces are not here")
def test_on_a_real_kernel():
    machines = [load(each) for each in ("textbook-setassoc", "intel-skylake-sp")]
    found = sampled(subject(SHARED / "fdtable"), machines, ["base", "pmd"], seed=1, check=True)
    for estimate, exact in zip(found.estimates, found.checked, strict=True):
        for figure in ("l1_misses", "stlb_misses"):
            bounds = getattr(estimate, figure)
            assert bounds.low <= exact[figure] <= bounds.high
    base = found.estimates[0].stlb_misses
    assert base.high - base.low < 0.25 * base.value  # the interval says something
