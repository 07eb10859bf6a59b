"""Cycles an access against arithmetic by hand, and the generators of patterns against slow twins."""

import numpy as np
import pytest

from pagewalk.errors import BadInput
from pagewalk.hardware.load import build, load
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.replay.tables import translate
from pagewalk.study.validation.case import Chase, Updates
from pagewalk.study.validation.predict import LARGEST_KNEE, _last, hosted, knee, predict
from pagewalk.study.validation.program import BASE, chase, hpcc, mapped, updates

X86 = GEOMETRIES["x86-64"]

SMALL = {
    "schema": "pagewalk.machine/1",
    "name": "small",
    "tlb": [
        {"name": "L1", "level": 1, "entries": 16, "ways": 4},
        {"name": "STLB", "level": 2, "entries": 64, "ways": 4, "hit_cycles": 7},
    ],
    "psc": [{"name": "PDE", "level": 2, "entries": 4}],
    "cache": [{"name": "L1D", "size_bytes": 1 << 20, "ways": 16, "latency_cycles": 4}],
    "memory": {"latency_cycles": 100},
    "walker": {"count": 2, "start_cycles": 20},
}


def small(**changes):
    return build(SMALL | changes, "small", "test")


def addresses(program):
    return (program.pages[program.page] << np.uint64(12)) + program.offset


def test_a_chase_is_one_cycle_over_all_nodes():
    program = chase(Chase(pages=100, stride=8192), X86)
    visited = addresses(program)
    assert len(visited) == 2 * program.warm
    rounds = visited.reshape(-1, 100)
    assert (rounds == rounds[0]).all()
    node = (rounds[0] - np.uint64(BASE)) // np.uint64(8192)
    assert sorted(node.tolist()) == list(range(100))
    assert (np.diff(node.astype(int)) != 1).any()
    inside = (rounds[0] - np.uint64(BASE)) % np.uint64(8192)
    assert (inside < 4096).all()
    assert (inside % 64 == 0).all()


def test_first_line_puts_nodes_at_the_start_of_their_stride():
    visited = addresses(chase(Chase(pages=10, stride=4096, line="first"), X86))
    assert (visited % 4096 == 0).all()


def test_independent_chains_take_turns_through_one_cycle():
    one = addresses(chase(Chase(pages=12), X86))[:12].tolist()
    four = addresses(chase(Chase(pages=12, chains=4), X86))[:8].tolist()
    assert four == [one[0], one[3], one[6], one[9], one[1], one[4], one[7], one[10]]


@pytest.mark.parametrize(("pages", "chains"), [(1 << 16, 512), (1000, 7), (3, 1024)])
def test_many_chains_make_no_longer_rounds(pages, chains):
    """The warm-up touches every node, and takes less than a step more than that, or than 4096 accesses."""
    program = chase(Chase(pages=pages, chains=chains), X86)
    assert len(np.unique(addresses(program)[: program.warm])) == pages
    assert max(pages, 4096) <= program.warm < max(pages, 4096) + pages + chains
    assert len(program.page) <= 2 * program.warm


def test_the_generator_of_hpcc_is_its_shift_register():
    numbers = hpcc(3, 5, 1)
    for stream in range(3):
        for step in range(4):
            value = int(numbers[step, stream])
            after = (value << 1 & (1 << 64) - 1) ^ (7 if value >> 63 else 0)
            assert int(numbers[step + 1, stream]) == after


def test_a_start_of_hpcc_is_as_many_steps_from_one():
    from pagewalk.study.validation.program import _hpcc_start

    value = 1
    for steps in range(200):
        assert _hpcc_start(steps) == value
        value = (value << 1 & (1 << 64) - 1) ^ (7 if value >> 63 else 0)


def test_mirrored_updates_come_in_pairs_that_add_up_to_the_table():
    program = updates(Updates(table=1 << 20, generator="hpcc", mirror=True), 1 << 12, 1 << 17)
    words = ((addresses(program) - np.uint64(BASE)) // np.uint64(8)).reshape(-1, 2)
    assert ((words.sum(axis=1) % np.uint64((1 << 20) // 8)) == 0).all()
    assert len(np.unique(words[:, 0])) > 10_000


def test_uniform_updates_may_have_a_table_of_any_size():
    """Three words, each as often as the others."""
    program = updates(Updates(table=24), 0, 30_000)
    words, times = np.unique(addresses(program), return_counts=True)
    assert (words - np.uint64(BASE)).tolist() == [0, 8, 16]
    assert times.min() > 9_700


def test_packed_frames_follow_the_order_of_addresses():
    pattern = Chase(pages=6, stride=1 << 21)
    program = chase(pattern, X86)
    mapping = mapped(program, pattern, X86)
    assert np.diff(mapping.frame).tolist() == [1] * 5
    scattered = mapped(program, Chase(pages=6, stride=1 << 21, frames="scattered"), X86)
    assert (np.diff(scattered.frame) != 1).any()


def test_pairs_of_frames_lie_together():
    """Every second page follows its neighbour, and begins at an even frame; pairs lie anywhere."""
    pattern = Chase(pages=40, stride=1 << 14, frames="pairs")
    frame = mapped(chase(pattern, X86), pattern, X86).frame
    assert (frame[::2] % 2 == 0).all()
    assert (frame[1::2] == frame[::2] + 1).all()
    assert len(np.unique(frame >> 9)) > 10


def test_filled_frames_lie_as_far_apart_as_their_pages():
    """Every fourth page of a buffer written in full has every fourth frame; updates fill their table."""
    pattern = Chase(pages=6, stride=1 << 14, frames="filled")
    assert np.diff(mapped(chase(pattern, X86), pattern, X86).frame).tolist() == [4] * 5
    table = Updates(table=1 << 36)
    program = updates(table, 0, 1000)
    assert (np.diff(mapped(program, table, X86).frame) == np.diff(program.pages.astype(np.int64))).all()


def test_page_tables_of_a_guest_lie_together():
    """Four tables of the lowest level, 512 entries each, then their four entries in one table above."""
    pattern = Chase(pages=4, stride=1 << 21)
    mapping = mapped(chase(pattern, X86), pattern, X86)
    alone, guest = (translate(mapping, machine).entry for machine in (small(), hosted(small(), "4K")))
    assert np.diff(guest[1]).tolist() == [4096] * 3
    assert np.diff(guest[2]).tolist() == [8] * 3
    assert (np.diff(alone[1]) != 4096).all()


@pytest.mark.parametrize(
    ("pages", "cycles"),
    [
        (16, 4),  # all in L1: the data read alone
        (17, 4 + 7 * 5 / 17),  # one set of four holds five: its five pages miss on each round
        (64, 4 + 7),  # all in the STLB
        (128, 4 + 7 + 20 + 4),  # all walk: start, and one PTE read from L1D
    ],
)
def test_cycles_of_a_chase_by_hand(pages, cycles):
    assert predict(Chase(pages=pages), small()).figures["cycles"] == pytest.approx(cycles)


def test_chains_share_the_time_until_the_walkers_are_busy():
    """35 cycles alone; two walkers of 24 cycles a walk finish one every 12."""
    for chains, cycles in ((1, 35), (2, 17.5), (3, 12), (8, 12)):
        found = predict(Chase(pages=256, chains=chains), small()).figures["cycles"]
        assert found == pytest.approx(cycles)


def test_cycles_with_a_walk_pending():
    """A walker busy 24 of 35 cycles, with twice as many chains both of two; then both always."""
    for chains, active in ((1, 24), (2, 17.5 * (1 - (11 / 35) ** 2)), (8, 12)):
        found = predict(Chase(pages=256, chains=chains), small()).figures
        assert found["walk_active"] == pytest.approx(active)
    one = small(walker={"count": 1, "start_cycles": 20})
    assert predict(Chase(pages=256, chains=2), one).figures["walk_active"] == pytest.approx(24)


def test_updates_whose_overlap_is_unknown_cost_what_the_walkers_allow():
    found = predict(Updates(table=1 << 30), small())
    assert found.figures["cycles"] == pytest.approx(found.figures["walk_cycles"] / 2)
    assert found.figures["stlb_misses"] == pytest.approx(1 - 64 / (1 << 18), abs=1e-3)
    assert 0 < found.error["walk_cycles"] < 0.05 * found.figures["walk_cycles"]


def test_a_machine_without_caches_reads_memory():
    assert predict(Chase(pages=16), small(cache=[])).figures["cycles"] == 100


@pytest.mark.parametrize(("stride", "l1", "stlb"), [(4096, 16, 64), (8192, 8, 32), (1 << 16, 4, 4)])
def test_knees_are_ways_times_the_sets_that_a_stride_uses(stride, l1, stlb):
    pattern = Chase(stride=stride)
    assert knee(pattern, small(), "l1") == l1
    assert knee(pattern, small(), "stlb") == stlb


def test_the_last_that_fits():
    for last in (0, 1, 2, 3, 17, 64, 1000):
        assert _last(lambda n, last=last: n <= last, 1 << 10) == last
    assert _last(lambda n: True, LARGEST_KNEE) == LARGEST_KNEE


def test_a_guest_walks_two_dimensions():
    """Guest 4K on host 4K with nothing cached but data: 24 reads of a cold walk, less what the PDEs save."""
    native, guest = small(), hosted(small(), "4K")
    assert guest.guest.host_leaf == "4K"
    assert hosted(guest, "2M").guest.host_leaf == "2M"
    here = predict(Chase(pages=256), native).figures
    there = predict(Chase(pages=256, host="4K"), native).figures
    assert there["walk_refs"] > here["walk_refs"]
    assert there["walk_cycles_host"] == there["walk_cycles"] - there["walk_cycles_guest"] > 0
    assert here["walk_cycles_host"] == 0


def test_a_leaf_that_the_geometry_has_not_is_refused():
    with pytest.raises(BadInput, match="x86-64 has no such leaf; it has 4K, 2M, 1G"):
        predict(Chase(leaf="64K"), small())
    with pytest.raises(BadInput, match="4K base pages only"):
        hosted(load("apple-m1-firestorm"), "2M")


def test_a_knee_of_large_pages_at_a_small_stride_is_exact():
    """16 entries of 2M hold 16 x 512 nodes of 4K, 640 hold 640 x 512; one node more is too many."""
    pattern = Chase(leaf="2M")
    assert knee(pattern, small(), "l1") == 16 * 512
    many = [SMALL["tlb"][0], SMALL["tlb"][1] | {"entries": 640}]
    assert knee(pattern, small(tlb=many), "stlb") == 640 * 512


def test_contiguous_frames_share_entries_where_the_machine_merges():
    merging = small(tlb=[SMALL["tlb"][0] | {"coalesce": 4, "ways": 0}, SMALL["tlb"][1]])
    assert knee(Chase(), merging, "l1") == 16
    assert knee(Chase(frames="contiguous"), merging, "l1") == 64
    assert knee(Chase(frames="contiguous", stride=8192), merging, "l1") == 16
    assert knee(Chase(frames="contiguous"), small(), "l1") == 16
