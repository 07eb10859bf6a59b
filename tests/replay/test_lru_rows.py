"""The fast LRU levels against lists that are moved to front one access at a time."""

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru import rows, tables
from pagewalk.kernels.lru.vector import RUN, WIDTHS, changes, front, lowest

PAGES = 600
"""Distinct pages of the streams; more than any small array here holds."""


class PlainLru:
    """Sets as lists, most recent first."""

    def __init__(self, ways):
        self.ways = ways
        self.sets = [[] for _ in ways]

    def hit(self, row, entry):
        held = self.sets[row]
        found = entry in held
        if found:
            held.remove(entry)
        held.insert(0, entry)
        del held[self.ways[row] :]
        return found


@dataclass
class Model:
    """A machine and a mapping: units of 1 or 8 pages; the larger ones skip the lowest PSC."""

    large: np.ndarray
    l1_sets: int
    l1_ways: list
    stlb_sets: int
    stlb_ways: int
    psc_ways: list

    def __post_init__(self):
        page = np.arange(PAGES)
        unit = np.where(self.large[page >> 3], PAGES + (page >> 3), page)
        self.unit = np.unique(unit, return_inverse=True)[1]
        first = np.unique(self.unit, return_index=True)[1]
        self.l1_row, self.stlb_row = self.unit % self.l1_sets, self.unit * 7 % self.stlb_sets
        self.lowest = self.large[first >> 3].astype(np.int64)
        caches = np.arange(len(self.psc_ways))[:, None]
        self.psc_tag, self.psc_set = first >> 4 + 2 * caches, first * 0 + caches

    def plainly(self, stream):
        """Positions of L1 misses, of STLB misses, and the PSC that each walk found its entry in."""
        l1, stlb = PlainLru(self.l1_ways), PlainLru([self.stlb_ways] * self.stlb_sets)
        psc = PlainLru(self.psc_ways)
        missed, walked, found = [], [], []
        for at, page in enumerate(stream):
            unit = self.unit[page]
            if l1.hit(self.l1_row[page], unit):
                continue
            missed.append(at)
            if stlb.hit(self.stlb_row[page], unit):
                continue
            walked.append(at)
            cache = self.lowest[unit]
            while cache < len(self.psc_ways) and not psc.hit(cache, self.psc_tag[cache, unit]):
                cache += 1
            found.append(min(cache, len(self.psc_ways)))
        return missed, walked, found

    def looked_up(self, above=0):
        """Places, rows of L1 and STLB, and walk caches; all numbers of units higher by `above` groups."""
        number, psc = tables.make_psc(self.lowest, self.psc_set, self.psc_tag, np.array(self.psc_ways, int))
        number += above << tables.GROUP_SHIFT
        psc = psc._replace(place=np.append(np.zeros(above, np.int64), psc.place))
        psc.begin[1:] += above
        place = tables.make_places(number[self.unit], self.l1_row, self.stlb_row)
        l1 = tables.make_rows(np.array(self.l1_ways))
        stlb = tables.make_rows(np.full(self.stlb_sets, self.stlb_ways), 0, tables.ROW_BITS)
        return place, l1, stlb, psc

    def fast(self, stream, chunk):
        place, l1, stlb, psc = self.looked_up()
        last = np.full(1, -1)
        misses = tables.make_misses(chunk, len(self.psc_ways))
        out = [], [], []
        for start in range(0, len(stream), chunk):
            part = stream[start : start + chunk].copy()
            n1, n2 = rows.lru_levels(part, place, l1, stlb, psc, last, misses)
            out[0].extend((start + misses.l1_at[:n1]).tolist())
            out[1].extend((start + misses.at[:n2]).tolist())
            out[2].extend(misses.found[:n2].tolist())
        return out

    def totals(self, stream, chunk, above):
        """Misses of L1 and STLB and what `passed` says, with packed places; the type of these."""
        packed = tables.pack(*self.looked_up(above))
        last, passed = np.full(1, -1), np.zeros(len(self.psc_ways), np.int64)
        missed = np.zeros(2, np.int64)
        for start in range(0, len(stream), chunk):
            missed += rows.lru_totals(stream[start : start + chunk].copy(), *packed, last, passed)
        return [*missed.tolist(), *passed.tolist()], packed


@st.composite
def models(draw):
    l1_sets = draw(st.sampled_from([1, 2, 3, 16]))
    ways = st.integers(1, draw(st.sampled_from(WIDTHS)))
    return Model(
        np.array(draw(st.lists(st.booleans(), min_size=PAGES // 8, max_size=PAGES // 8))),
        l1_sets,
        draw(st.lists(ways, min_size=l1_sets, max_size=l1_sets)),
        draw(st.sampled_from([1, 2, 5, 32])),
        draw(ways),
        draw(st.lists(ways, max_size=3)),
    )


@st.composite
def streams(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([0, 1, 2, RUN - 1, RUN, RUN + 1, RUN + 2, 1000, 3000]))
    kind = draw(st.sampled_from(["random", "skewed", "sweep", "runs", "one set", "few"]))
    if kind == "random":
        stream = rng.integers(0, PAGES, size)
    elif kind == "skewed":
        stream = (PAGES * rng.random(size) ** 4).astype(int)
    elif kind == "sweep":
        stream = np.arange(size) // 5 % PAGES
    elif kind == "runs":
        stream = np.repeat(rng.integers(0, PAGES, size), rng.geometric(0.05, size))[:size]
    elif kind == "one set":
        stream = rng.integers(0, PAGES // 96, size) * 96
    else:
        stream = rng.integers(0, 7, size)
    return stream.astype(np.uint32)


@settings(max_examples=150, deadline=None)
@given(models(), streams(), st.sampled_from([1, 63, 64, 65, 200, 10_000]))
def test_levels_miss_where_plain_lists_miss(model, stream, chunk):
    if chunk == 1:
        stream = stream[:200]
    assert [*map(list, model.fast(stream, chunk))] == [*map(list, model.plainly(stream.tolist()))]


def _totals(missed, walked, found, caches):
    return [len(missed), len(walked), *(sum(at > cache for at in found) for cache in range(caches))]


WIDE = 1 << 13
"""So many groups leave no room for a place in 32 bits, beside rows of 9 bits and more."""


@settings(max_examples=60, deadline=None)
@given(models(), streams(), st.sampled_from([63, 64, 65, 200, 10_000]), st.sampled_from([0, 1, WIDE]))
def test_packed_places_give_the_same_totals(model, stream, chunk, above):
    assert model.totals(stream, chunk, above)[0] == _totals(
        *model.plainly(stream.tolist()), len(model.psc_ways)
    )


@pytest.mark.parametrize(("l1_ways", "above"), [([4] * 16, 0), ([4] * 16, WIDE), ([4, 3] * 8, 0)])
def test_what_is_packed(l1_ways, above):
    model = Model(np.arange(PAGES // 8) % 5 == 0, 16, l1_ways, 512, 12, [4, 2, 2])
    stream = np.random.default_rng(4).integers(0, PAGES, 3 * rows.BLOCK + 77).astype(np.uint32)
    totals, (place, l1, stlb, _) = model.totals(stream, len(stream), above)
    assert totals == _totals(*model.plainly(stream.tolist()), 3)
    assert place.dtype == (np.int64 if above else np.int32)
    assert (np.ndim(l1.ways), np.ndim(stlb.ways)) == (int(l1_ways[1] == 3),) * 2


def test_more_than_a_block_in_one_chunk():
    rng = np.random.default_rng(3)
    model = Model(np.arange(PAGES // 8) % 5 == 0, 16, [4] * 16, 32, 12, [4, 2, 2])
    stream = rng.integers(0, PAGES, 3 * rows.BLOCK + 77).astype(np.uint32)
    assert [*map(list, model.fast(stream, len(stream)))] == [*map(list, model.plainly(stream.tolist()))]


@jit
def one_pass(rows_of, place, entry, at, entry_out, at_out):
    return rows._pass_block(rows_of, place, entry, at, entry_out, at_out)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=300), st.integers(1, 3), st.integers(1, 12))
def test_one_pass_through_one_level(entries, sets, ways):
    place = np.arange(31) + 100 | np.arange(31) % sets << 32
    entry = np.array([*entries, tables.EMPTY], np.int32)
    at = np.arange(len(entry), dtype=np.int32)
    n = one_pass(tables.make_rows(np.full(sets, ways)), place, entry, at, entry, at)
    plain = PlainLru([ways] * sets)
    missed = [i for i, e in enumerate(entries) if not plain.hit(e % sets, e)]
    assert at[:n].tolist() == missed
    assert entry[:n].tolist() == [entries[i] + 100 for i in missed]
    assert entry[n] == tables.EMPTY


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=60), st.sets(st.integers(0, 20)), st.integers(1, 9))
def test_dropped_entries_leave_no_trace(entries, gone, ways):
    rows, plain = tables.make_rows(np.array([ways])), PlainLru([ways])
    for e in entries:
        front(rows.lanes, 0, e, len(rows.lanes))
        plain.hit(0, e)
    marked = np.isin(np.arange(21), list(gone))
    before = len(plain.sets[0])
    plain.sets[0] = [e for e in plain.sets[0] if e not in gone]
    assert tables.drop(rows, marked) == before - len(plain.sets[0])
    assert [e for e in rows.lanes.tolist() if e != tables.EMPTY] == plain.sets[0]
    assert rows.lanes.tolist()[: len(plain.sets[0])] == plain.sets[0]


def test_units_of_one_group_share_their_path():
    path = np.repeat([0, 1, 2], [5, 1500, 512])
    number, psc = tables.make_psc(np.zeros(2017, int), path[None] * 0, path[None], np.array([4]))
    assert len(np.unique(number)) == 2017
    group = number >> tables.GROUP_SHIFT
    assert (psc.place[group] & 0xFFFFFFFF == path).all()
    assert len(psc.place) == 1 + 3 + 1


@pytest.mark.parametrize("width", WIDTHS)
def test_vector_front_is_the_plain_front(width):
    def sweep_of(move):
        def sweep(lanes, entries, found):
            for i in range(len(entries)):
                found[i] = move(lanes, i % 3 * width, entries[i], width)

        return sweep

    @inline
    def compiled(lanes, first, entry, unused):
        return front(lanes, first, entry, width)

    rng = np.random.default_rng(width)
    entries = rng.integers(0, 2 * width, 2000).astype(np.int32)
    fast, plain = (tables.make_rows(np.full(3, width)).lanes for _ in range(2))
    found = np.zeros((2, 2000), np.int64)
    jit(sweep_of(compiled))(fast, entries, found[0])
    sweep_of(front)(plain, entries, found[1])
    assert (found[0] == found[1]).all()
    assert (fast == plain).all()
    assert set(found[0]) == {*range(width), max(width, 64)}


def test_vector_changes_are_the_plain_changes():
    @jit
    def compiled(stream, first):
        mask = changes(stream, first)
        return mask, lowest(mask)

    rng = np.random.default_rng(1)
    for share in (0.0, 0.02, 0.5, 1.0):
        stream = np.cumsum(rng.random(200) < share).astype(np.uint32)
        stream[100] += 1000
        for first in (1, 50, 99, 100, 136):
            mask = changes(stream, first)
            assert mask == sum(1 << i for i in range(RUN) if stream[first + i] != stream[first + i - 1])
            if mask:
                assert compiled(stream, first) == (mask, lowest(mask))
                assert int(mask) >> lowest(mask) & 1
                assert int(mask) % (1 << lowest(mask)) == 0


def _compiled_functions(function, found):
    """The function and all compiled functions that it calls."""
    if not hasattr(function, "py_func") or function in found:
        return
    found.append(function)
    names = inspect.getclosurevars(function.py_func)
    for value in [*names.globals.values(), *names.nonlocals.values()]:
        _compiled_functions(value, found)


def test_no_two_loops_share_a_name():
    """A loop from the cache would otherwise be taken for another that this process compiled."""
    found = []
    for kernel in (rows.lru_levels, rows.lru_totals, one_pass):
        _compiled_functions(kernel, found)
    names = [f.py_func.__module__ + "." + f.py_func.__qualname__ for f in found]
    assert len(names) > 3 * len(WIDTHS)
    assert len(set(names)) == len(names)


def test_uncompiled_the_same():
    script = """if True:
        import numpy as np
        from test_lru_rows import Model, PAGES
        model = Model(np.arange(PAGES // 8) % 3 == 0, 16, [4] * 16, 32, 12, [4, 2])
        stream = (PAGES * np.random.default_rng(5).random(700) ** 3).astype(np.uint32)
        print(model.fast(stream, 300) == tuple(map(list, model.plainly(stream.tolist()))))
    """
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
