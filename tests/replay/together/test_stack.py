"""All sizes at once against one list for each set, and against closed forms."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.kernels.lru import rows, tables
from pagewalk.kernels.sizes import distances, set_stacks

PAGES = 500


def plain_depth(held, unit):
    """Depth of the unit in a list, most recent first, or None; it moves to the front."""
    depth = held.index(unit) if unit in held else None
    if depth is not None:
        held.remove(unit)
    held.insert(0, unit)
    return depth


def fast_distances(stream, unit_of_page, chunk, state=None):
    units = int(unit_of_page.max()) + 1
    state = state or distances.make_stack(units)
    depths = np.zeros(units + 1, np.int64)
    for start in range(0, len(stream), chunk):
        distances.stack_distances(
            stream[start : start + chunk].copy(), unit_of_page.astype(np.int32), state, depths
        )
    return depths


def plain_distances(stream, unit_of_page):
    units = int(unit_of_page.max()) + 1
    depths, held = np.zeros(units + 1, np.int64), []
    for page in stream.tolist():
        depth = plain_depth(held, unit_of_page[page])
        depths[units if depth is None else depth] += 1
    return depths


def set_depths(stream, l1_sets, l1_ways, set_counts, chunk):
    page = np.arange(PAGES)
    place = tables.make_places(page, page % l1_sets, page % (1 << set_counts))
    stacks = set_stacks.make_set_stacks(set_counts)
    l1, last = tables.make_rows(np.full(l1_sets, l1_ways)), np.full(1, -1)
    missed = sum(
        set_stacks.all_set_counts(stream[start : start + chunk].copy(), place, l1, stacks, last)
        for start in range(0, len(stream), chunk)
    )
    return missed, stacks.depths


def plain_set_depths(stream, l1_sets, l1_ways, set_counts):
    l1 = [[] for _ in range(l1_sets)]
    sets = [[[] for _ in range(1 << c)] for c in range(set_counts)]
    depths, missed = np.zeros((set_counts, set_stacks.WAYS + 1), np.int64), 0
    for page in stream.tolist():
        held = l1[page % l1_sets]
        hit = page in held
        plain_depth(held, page)
        del held[l1_ways:]
        if hit:
            continue
        missed += 1
        for c in range(set_counts):
            depth = plain_depth(sets[c][page % (1 << c)], page)
            depths[c, set_stacks.WAYS if depth is None else min(depth, set_stacks.WAYS)] += 1
    return missed, depths


@st.composite
def streams(draw, most=1500):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([0, 1, 63, 64, 65, 300, most]))
    kind = draw(st.sampled_from(["random", "skewed", "sweep", "runs", "one set", "few"]))
    if kind == "random":
        stream = rng.integers(0, PAGES, size)
    elif kind == "skewed":
        stream = PAGES * rng.random(size) ** 4
    elif kind == "sweep":
        stream = np.arange(size) // 3 % PAGES
    elif kind == "runs":
        stream = np.repeat(rng.integers(0, PAGES, size), rng.geometric(0.1, size))[:size]
    elif kind == "one set":
        stream = rng.integers(0, PAGES // 16, size) * 16
    else:
        stream = rng.integers(0, 9, size)
    return stream.astype(np.uint32)


@settings(max_examples=60, deadline=None)
@given(streams(), st.sampled_from([1, 3, 8]), st.sampled_from([70, 10_000]))
def test_distances_are_depths_in_one_list(stream, pages_per_unit, chunk):
    unit_of_page = np.arange(PAGES) // pages_per_unit
    assert (fast_distances(stream, unit_of_page, chunk) == plain_distances(stream, unit_of_page)).all()


def small_stack(units, slots):
    """A stack with fewer slots, so that units move often."""
    state = distances.make_stack(units)
    return state._replace(unit_in=state.unit_in[:slots])


@settings(max_examples=25, deadline=None)
@given(streams(), st.integers(1, 100))
def test_distances_survive_the_end_of_the_slots(stream, spare):
    unit_of_page = np.arange(PAGES)
    state = small_stack(PAGES, PAGES + spare)
    assert (fast_distances(stream, unit_of_page, 400, state) == plain_distances(stream, unit_of_page)).all()


def test_distances_through_three_levels_of_counts():
    """A sweep over n units finds each at depth n - 1; with 200 000 units the tree has three levels."""
    units = 200_000
    state = distances.make_stack(units)
    assert len(state.begin) == 3
    sweep = np.tile(np.arange(units, dtype=np.uint32), 4)
    depths = fast_distances(sweep, np.arange(units), 1 << 20)
    assert depths[units] == units
    assert depths[units - 1] == 3 * units
    assert depths.sum() == len(sweep)
    there_and_back = np.concatenate([sweep[:units], sweep[:units][::-1]])
    assert (fast_distances(there_and_back, np.arange(units), 1 << 20)[:units] == 1).all()


@settings(max_examples=60, deadline=None)
@given(
    streams(),
    st.sampled_from([1, 2, 16]),
    st.integers(1, 4),
    st.integers(1, 7),
    st.sampled_from([64, 10_000]),
)
def test_all_set_counts_are_one_list_for_each_set(stream, l1_sets, l1_ways, set_counts, chunk):
    fast = set_depths(stream, l1_sets, l1_ways, set_counts, chunk)
    plain = plain_set_depths(stream, l1_sets, l1_ways, set_counts)
    assert fast[0] == plain[0]
    assert (fast[1] == plain[1]).all()


@pytest.mark.parametrize(("sets_log2", "ways"), [(0, 32), (3, 5), (7, 12), (10, 1)])
def test_all_set_counts_agree_with_the_level_by_level_replay(sets_log2, ways):
    rng = np.random.default_rng(ways)
    pages = 4096
    stream = (pages * rng.random(50_000) ** 2).astype(np.uint32)
    page = np.arange(pages)
    l1_ways, none = np.full(16, 4), np.zeros((0, pages), int)
    stacks = set_stacks.make_set_stacks(11)
    place = tables.make_places(page, page & 15, page & 1023)
    missed = set_stacks.all_set_counts(stream, place, tables.make_rows(l1_ways), stacks, np.full(1, -1))
    number, psc = tables.make_psc(page * 0, none, none, np.zeros(0, int))
    place = tables.make_places(number, page & 15, page & (1 << sets_log2) - 1)
    stlb = tables.make_rows(np.full(1 << sets_log2, ways), 0, tables.ROW_BITS)
    misses = tables.make_misses(len(stream), 0)
    levels = rows.lru_levels(stream, place, tables.make_rows(l1_ways), stlb, psc, np.full(1, -1), misses)
    assert levels == (missed, missed - stacks.depths[sets_log2, :ways].sum())


def test_uncompiled_the_same():
    script = """if True:
        import numpy as np
        import test_stack as t
        stream = (t.PAGES * np.random.default_rng(5).random(500) ** 3).astype(np.uint32)
        units = np.arange(t.PAGES)
        fast = t.fast_distances(stream, units, 300, t.small_stack(t.PAGES, t.PAGES + 10))
        print((fast == t.plain_distances(stream, units)).all())
        fast, plain = t.set_depths(stream, 4, 2, 4, 200), t.plain_set_depths(stream, 4, 2, 4)
        print(fast[0] == plain[0] and (fast[1] == plain[1]).all())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")
