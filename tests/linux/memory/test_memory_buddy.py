"""The page allocator against what its rules say, and against a plain set of frames."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.errors import BadInput
from pagewalk.linux.memory.buddy import (
    MOVABLE,
    RECLAIMABLE,
    UNMOVABLE,
    Memory,
    Orders,
    gather,
)
from pagewalk.linux.memory.conditions import age, fresh, from_buddyinfo
from places import OUTSIDE

MIB = 1 << 20
GIB = 1 << 30
SAMPLES = OUTSIDE / "reference/samples"


def small(mib: int = 64) -> Memory:
    return fresh({0: [(4 * GIB, 4 * GIB + mib * MIB)]})


def nodes(*which: int):
    return itertools.cycle(which or (0,))


def test_a_block_is_halved_from_the_top_and_the_lowest_address_goes_first():
    memory = small(4)
    assert memory.take(0) == 4 * GIB >> 12
    assert memory.buddyinfo()[0, "Normal"] == [1] * 10 + [0]
    assert [memory.take(0) for _ in range(3)] == [(4 * GIB >> 12) + i for i in (1, 2, 3)]


def test_what_was_freed_last_is_taken_first():
    memory = small()
    frames = [memory.take(0) for _ in range(8)]
    memory.give([frames[2]])
    memory.give([frames[4]])
    assert [memory.take(0), memory.take(0)] == [frames[4], frames[2]]


def test_freeing_everything_merges_back_to_the_start():
    memory = small()
    before = memory.buddyinfo()
    frames = [memory.take(order % 5, order % 3) for order in range(500)]
    memory.give(reversed(frames))
    assert memory.buddyinfo() == before
    assert memory.held_frames() == 0


def test_zones_are_taken_from_the_top_and_the_other_node_comes_last():
    memory = fresh({0: [(0, 3 * GIB), (4 * GIB, 4 * GIB + 4 * MIB)], 1: [(8 * GIB, 8 * GIB + 4 * MIB)]})
    assert [(z.node, z.name) for z in memory.zones] == [
        (0, "DMA"),
        (0, "DMA32"),
        (0, "Normal"),
        (1, "Normal"),
    ]
    assert memory.take(10, node=1) == 8 * GIB >> 12
    assert memory.take(10, node=1) == 4 * GIB >> 12
    assert memory.take(10, node=1) == 16 * MIB >> 12
    assert memory.free_frames() << 12 == 3 * GIB - 4 * MIB


def test_unmovable_pages_convert_the_largest_movable_block():
    memory = small(16)
    zone = memory.zones[0]
    first = memory.take(0, MOVABLE)
    assert memory.take(0, UNMOVABLE) >> 10 != first >> 10
    assert list(zone.block_type) == [MOVABLE, MOVABLE, UNMOVABLE, UNMOVABLE] + [MOVABLE] * 4


def test_a_lower_zone_s_pageblock_comes_before_a_part_of_one_here():
    """The kernel's ALLOC_NOFRAGMENT: rather another zone of the node than mixing types in a pageblock."""
    memory = fresh({0: [(2 * GIB, 2 * GIB + 4 * MIB), (4 * GIB, 4 * GIB + 4 * MIB)]})
    movable = [memory.take(0, MOVABLE) for _ in range(1024)]
    assert min(movable) >= 4 * GIB >> 12
    memory.give(movable[:100])
    assert memory.take(0, UNMOVABLE) == 2 * GIB >> 12


def test_a_page_that_will_soon_merge_is_taken_last():
    """If the pair beside it is free, its own pair may soon be: it goes to the end of its list."""
    memory = small(4)
    frames = [memory.take(0) for _ in range(1024)]
    memory.give([frames[100], frames[2], frames[3]])
    memory.give([frames[0]])
    assert [memory.take(0), memory.take(0)] == [frames[100], frames[0]]


def test_a_mostly_used_pageblock_is_raided_but_keeps_its_type():
    memory = small(4)
    movable = [memory.take(0, MOVABLE) for _ in range(1024)]
    memory.give(movable[:100])
    assert memory.take(0, UNMOVABLE) in movable[:100]
    assert memory.zones[0].block_type[0] == MOVABLE
    assert sum(len(lists[MOVABLE]) for lists in memory.zones[0].free) == 0


def test_a_mostly_free_pageblock_is_converted():
    memory = small(4)
    movable = [memory.take(0, MOVABLE) for _ in range(1024)]
    memory.give(movable[:300])
    memory.take(0, RECLAIMABLE)
    assert list(memory.zones[0].block_type) == [RECLAIMABLE, MOVABLE]


def test_one_held_page_per_pageblock_leaves_no_order_9_block():
    memory = small(64)
    frames = [memory.take(0) for _ in range(64 * MIB >> 12)]
    memory.give(frame for frame in frames if frame % 512 != 77)
    assert memory.free_frames() == 32 * 511
    assert memory.unusable(9) == 1.0
    assert memory.take(9) is None
    assert memory.misses == {9: 1}
    assert memory.take(8) is not None


def test_freeing_what_is_not_allocated_is_refused():
    memory = small()
    frame = memory.take(1)
    with pytest.raises(ValueError, match="not the head"):
        memory.give([frame + 1])


def test_interleave_moves_on_one_block_at_a_time():
    memory = fresh({0: [(4 * GIB, 5 * GIB)], 1: [(5 * GIB, 6 * GIB)]})
    for pages, order in ((2048, 9), (8, 0)):
        frames = gather(memory, pages, order, nodes(0, 1))
        node = frames >= 5 * GIB >> 12
        assert np.array_equal(node, (np.arange(pages) >> order) % 2 == 1)


def test_the_bulk_allocator_is_called_for_a_hundred_pages_at_a_time():
    memory = small(128)
    gather(memory, 16384, 0, nodes())
    assert memory.bulk_calls == 164
    gather(memory, 512, 9, nodes())
    assert memory.bulk_calls == 164


def test_large_orders_first_since_7_2():
    memory = small(64)
    frames = gather(memory, 1000, 0, nodes(), large=True)
    sizes = [512, 256, 128, 64, 32, 8]
    assert memory.tries == {order.bit_length() - 1: 1 for order in sizes}
    starts = np.cumsum([0, *sizes[:-1]])
    assert all(np.all(np.diff(frames[s : s + n]) == 1) for s, n in zip(starts, sizes, strict=True))
    assert all(frames[s] % n == 0 for s, n in zip(starts, sizes, strict=True))


def test_each_failure_lowers_the_ceiling():
    memory = small(64)
    held = [memory.take(0) for _ in range(64 * MIB >> 12)]
    memory.give(frame for frame in held if frame % 16 != 0)
    assert gather(memory, 64, 0, nodes(), large=True) is not None
    assert memory.misses == {6: 1, 5: 1, 4: 1}


def test_an_area_that_cannot_be_had_leaves_nothing_behind():
    memory = small(64)
    before = memory.buddyinfo()
    assert gather(memory, 65 * MIB >> 12, 0, nodes()) is None
    assert memory.buddyinfo() == before


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "give", "split"]), st.integers(0, 10), st.integers(0, 2)),
        max_size=120,
    )
)
def test_no_frame_is_lost_or_given_twice(steps):
    memory = fresh({0: [(4 * GIB, 4 * GIB + 24 * MIB + 12288)]})
    total = memory.free_frames()
    held: dict[int, int] = {}
    for what, number, kind in steps:
        if what == "take" and (frame := memory.take(number, kind)) is not None:
            assert frame % (1 << number) == 0
            for other, order in held.items():
                assert frame + (1 << number) <= other or other + (1 << order) <= frame
            held[frame] = number
        elif held and what == "give":
            frame = sorted(held)[number % len(held)]
            memory.give([frame])
            del held[frame]
        elif held and what == "split":
            frame = sorted(held)[number % len(held)]
            order = held.pop(frame)
            memory.split(frame)
            held.update({frame + i: 0 for i in range(1 << order)})
        in_use = sum(1 << order for order in held.values())
        assert memory.held_frames() == in_use
        assert memory.free_frames() == total - in_use
    memory.give(held)
    assert memory.buddyinfo() == fresh({0: [(4 * GIB, 4 * GIB + 24 * MIB + 12288)]}).buddyinfo()


def parse(text: str) -> dict[tuple[int, str], list[int]]:
    rows = (line.replace(",", "").split() for line in text.splitlines())
    return {(int(row[1]), row[3]): [int(n) for n in row[4:]] for row in rows}


def test_memory_laid_out_from_the_sample_has_its_counts():
    path = SAMPLES / "buddyinfo-6.18-x86_64.txt"
    if not path.exists():
        pytest.skip("needs the shared samples")
    counts = parse(path.read_text())
    memory = from_buddyinfo(
        {zone: {MOVABLE: numbers} for zone, numbers in counts.items()},
        {0: [(4096, 3 * GIB), (4 * GIB, 25 * GIB)]},
    )
    assert memory.buddyinfo() == counts
    assert memory.blocks(9) == sum(n[9] + 2 * n[10] for n in counts.values())
    for zone in memory.zones:
        for frame, (order, _) in zone.heads.items():
            assert order == 10 or zone.heads.get(frame ^ (1 << order), (None,))[0] != order
    assert memory.held_frames() + memory.free_frames() == (24 * GIB >> 12) - 1
    frame = memory.take(9)
    memory.give([frame])
    assert memory.buddyinfo() == counts


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(BadInput, match="do not fit"):
        from_buddyinfo({(0, "Normal"): {MOVABLE: [600] + [0] * 10}}, {0: [(4 * GIB, 4 * GIB + 4 * MIB)]})
    with pytest.raises(BadInput, match="no zone DMA"):
        from_buddyinfo({(0, "DMA"): {MOVABLE: [1] + [0] * 10}}, {0: [(4 * GIB, 5 * GIB)]})
    with pytest.raises(BadInput, match="Normal is missing"):
        from_buddyinfo({}, {0: [(4 * GIB, 5 * GIB)]})


def test_order_0_blocks_fill_at_most_half():
    memory = from_buddyinfo({(0, "Normal"): {MOVABLE: [512] + [0] * 10}}, {0: [(4 * GIB, 4 * GIB + 4 * MIB)]})
    assert memory.free_frames() == memory.held_frames() == 512


@pytest.mark.parametrize(("unusable", "free"), [(0.0, 0.3), (0.3, 0.3), (0.7, 0.5), (0.95, 0.2)])
def test_ageing_reaches_the_fragmentation_asked_for(unusable, free):
    memory = small(512)
    held = age(memory, unusable=unusable, free=free, seed=3)
    assert memory.unusable(9) == pytest.approx(unusable, abs=0.05)
    assert memory.free_frames() / (512 * MIB >> 12) == pytest.approx(free, abs=0.03)
    again = small(512)
    assert age(again, unusable=unusable, free=free, seed=3) == held
    memory.give(held)
    assert memory.buddyinfo() == small(512).buddyinfo()


def test_more_fragmentation_means_fewer_huge_blocks():
    had = []
    for unusable in (0.1, 0.5, 0.9):
        memory = small(512)
        age(memory, unusable=unusable, seed=1)
        had.append(memory.blocks(9))
    assert had == sorted(had, reverse=True)
    assert had[0] > 5 * had[-1]


def test_other_base_pages_have_other_orders():
    memory = fresh({0: [(4 * GIB, 5 * GIB)]}, Orders(page_shift=16, largest=9, pageblock=5))
    assert memory.buddyinfo()[0, "Normal"] == [0] * 9 + [32]
    assert memory.take(5) == 4 * GIB >> 16


def test_nodes_that_overlap_are_refused():
    with pytest.raises(BadInput, match="nodes 0 and 1 overlap"):
        fresh({0: [(4 * GIB, 5 * GIB), (6 * GIB, 7 * GIB)], 1: [(5 * GIB, 6 * GIB)]})
