"""The oracle against cases worked out by hand: a rule stands in each name, the arithmetic in each test."""

from typing import Any

import numpy as np
import pytest

from pagewalk.hardware.machine import AddressSpaces, Flush, Guest, Psc
from pagewalk.linux.geometry import Geometry, Leaf
from pagewalk.trace.trace import FLUSH_ALL, FLUSH_LOCAL, FLUSH_RANGE, SWITCH, UNMAP
from reference import FETCH, LOAD, SKIP, STORE, simulate
from strategies import VMALLOC, event, machine, mapping, textbook_fullassoc, textbook_setassoc, tlb

A, B, C, D = range(4)


def run(a_machine: Any, pages: list[int], order: list[int], leaf: Any = 12, **more: Any) -> dict[str, Any]:
    """Load the pages in this order."""
    mapped = {key: more.pop(key) for key in ("contiguous", "frame", "geometry") if key in more}
    kinds = more.pop("kinds", [LOAD] * len(order))
    return simulate(a_machine, pages, mapping(pages, leaf, **mapped), order, kinds, **more)


# ---------------------------------------------------------------- sets, shapes, kinds


def test_pages_of_one_set_conflict() -> None:
    # 2 sets of 1 way: even pages fight for set 0, page 1 is alone in set 1.
    found = run(machine(tlb(1, 2, 1)), [VMALLOC + i for i in (0, 1, 2)], [0, 1, 2, 0, 1])
    assert found["l1_miss_positions"] == [0, 1, 2, 3]


def test_named_index_is_used() -> None:
    # VPN[1]: pages 0 and 1 share set 0, page 2 has set 1.
    found = run(machine(tlb(1, 2, 1, index="VPN[1]")), [VMALLOC + i for i in (0, 1, 2)], [0, 1, 2, 0, 2])
    assert found["l1_miss_positions"] == [0, 1, 2, 3]


def test_one_large_leaf_is_one_entry() -> None:
    pages = [VMALLOC, VMALLOC + 511, VMALLOC + 512]
    found = run(machine(tlb(1, 4), tlb(2, 8)), pages, [0, 1, 2, 0, 1, 2], 21)
    assert found["l1_miss_positions"] == [0, 2]
    assert found["walks"] == [[("PML4E", "memory"), ("PDPTE", "memory"), ("PDE", "memory")]] * 2


def test_leaves_of_other_sizes_are_other_entries() -> None:
    # Page number 0 as 4K and the 2M leaf number 0 share neither entry nor tag.
    found = run(machine(tlb(1, 4)), [512 * 8, 8], [0, 1, 0, 1], [21, 12])
    assert found["l1_miss_positions"] == [0, 1]


def test_arrays_by_leaf_size() -> None:
    # One 4K entry and one 2M entry: a 2M access does not drop the 4K entry.
    split = machine(tlb(1, 1, holds=["4K"], name="4K"), tlb(1, 1, holds=["2M"], name="2M"))
    assert run(split, [VMALLOC, VMALLOC + 512], [0, 1, 0, 1], [12, 21])["l1_miss_positions"] == [0, 1]


def test_a_leaf_that_nobody_holds_is_broken_into_the_largest_below() -> None:
    # 1G leaf, arrays of 4K and 2M: two addresses of one 2M block share an entry, the next block does not.
    broken = machine(tlb(1, 2, holds=["4K", "2M"]), tlb(2, 2, holds=["4K"]))
    found = run(broken, [0, 511, 512, 0], [0, 1, 2, 0], 30)
    assert found["l1_miss_positions"] == [0, 2]
    assert [len(walk) for walk in found["walks"]] == [2, 2]  # the leaf still lies in the PDPT


def test_choose_picks_among_several() -> None:
    # Odd pages go to the second array: three even pages in one 2-entry array conflict, odd page 1 stays
    # alone.
    two = machine(tlb(1, 2, name="a"), tlb(1, 2, name="b"), choose="VPN[0]")
    found = run(two, [VMALLOC + i for i in (0, 2, 4, 1)], [3, 0, 1, 2, 0, 3])
    assert found["l1_miss_positions"] == [0, 1, 2, 3, 4]


def test_choose_only_among_those_that_hold() -> None:
    # The Golden Cove form: 4K in both arrays, 2M in the first only, 1G in the second only.
    gc = machine(
        tlb(1, 1, holds=["4K", "2M"], name="a"), tlb(1, 1, holds=["4K", "1G"], name="b"), choose="VPN[0]"
    )
    pages = [VMALLOC + 512 * 1, VMALLOC + 512 * 512, VMALLOC + 4, VMALLOC + 5]
    # 2M into a, 1G into b; page 4 (even) drops the 2M of a; 1G still in b; page 5 drops it.
    found = run(gc, pages, [0, 1, 2, 1, 0, 3, 1], [21, 30, 12, 12])
    assert found["l1_miss_positions"] == [0, 1, 2, 4, 5, 6]


def test_kinds_have_their_own_arrays() -> None:
    split = machine(
        tlb(1, 1, serves=["load"], name="l"),
        tlb(1, 1, serves=["store"], name="s"),
        tlb(1, 1, serves=["fetch"], name="i"),
        tlb(2, 8),
    )
    found = run(split, [VMALLOC], [0] * 6, kinds=[LOAD, STORE, FETCH, LOAD, STORE, FETCH])
    assert found["l1_miss_positions"] == [0, 1, 2]
    assert found["stlb_miss_positions"] == [0]  # the others find it in the shared STLB
    assert found["counts"] == {
        "accesses": 6, "l1_dtlb_misses": 2, "l1_itlb_misses": 1, "stlb_hits": 2, "stlb_misses": 1,
        "walks": 1, "walk_refs": 4, "walks_by_refs_4": 1,
    }  # fmt: skip


def test_a_kind_without_l1_goes_to_the_stlb() -> None:
    found = run(machine(tlb(1, 4, serves=["load"]), tlb(2, 4)), [VMALLOC], [0, 0], kinds=[STORE, STORE])
    assert found["l1_miss_positions"] == [0, 1]
    assert found["stlb_miss_positions"] == [0]


def test_a_fetch_that_misses_a_common_l1_misses_the_dtlb() -> None:
    # Only a machine with an L1 for fetches alone has an ITLB to miss.
    counts = run(machine(tlb(1, 4)), [VMALLOC], [0], kinds=[FETCH])["counts"]
    assert (counts["l1_dtlb_misses"], counts.get("l1_itlb_misses", 0)) == (1, 0)


def test_hits_of_the_second_level_add_its_cycles() -> None:
    found = run(machine(tlb(1, 1), tlb(2, 4, hit_cycles=7)), [VMALLOC, VMALLOC + 1], [0, 1, 0, 1, 1])
    assert found["cycles"]["stlb_hit"] == 2 * 7


def test_without_a_second_level_each_miss_walks() -> None:
    found = run(machine(tlb(1, 1)), [VMALLOC, VMALLOC + 1], [0, 1, 0])
    assert found["counts"]["walks"] == 3
    assert "stlb_hits" not in found["counts"]


def test_skipped_records_only_take_positions() -> None:
    found = run(machine(tlb(1, 4)), [VMALLOC], [0, 0, 0], kinds=[SKIP, LOAD, LOAD])
    assert (found["counts"]["accesses"], found["l1_miss_positions"]) == (2, [1])


def test_coalesced_entry_covers_the_contiguous_block() -> None:
    # coalesce 4: pages 0..3 are one entry where they are contiguous, pages 4, 5 (a block of 8 KiB) one for
    # two.
    four = machine(tlb(1, 8, coalesce=4))
    pages = [VMALLOC + i for i in range(8)]
    contiguous = [14, 14, 14, 14, 13, 13, 12, 12]
    assert run(four, pages, list(range(8)), contiguous=contiguous)["l1_miss_positions"] == [0, 4, 6, 7]


def test_coalescing_is_capped_and_for_base_leaves_only() -> None:
    two = machine(tlb(1, 8, coalesce=2))
    pages = [VMALLOC + i for i in range(4)]
    assert run(two, pages, [0, 1, 2, 3], contiguous=30)["l1_miss_positions"] == [0, 2]
    large = [VMALLOC, VMALLOC + 100, VMALLOC + 512]
    assert run(two, large, [0, 1, 2], 21, contiguous=30)["l1_miss_positions"] == [0, 2]


def test_coalesced_entries_are_indexed_by_their_own_number() -> None:
    # Entry number = page >> 2: pages 0 and 4 lie in sets 0 and 1, pages 0 and 8 in the same.
    sets = machine(tlb(1, 2, 1, coalesce=4))
    pages = [VMALLOC, VMALLOC + 4, VMALLOC + 8]
    assert run(sets, pages, [0, 1, 0, 2, 0], contiguous=14)["l1_miss_positions"] == [0, 1, 3, 4]


# ---------------------------------------------------------------- the two levels


def test_an_l1_hit_does_not_touch_the_stlb() -> None:
    # L1 2, STLB 2, LRU. A B fill both; A hits L1 only; C drops A from the STLB (oldest there), B from L1.
    # Then B: L1 miss, STLB hit. A: L1 (A, C -> B dropped A? L1 after B: C, B) miss, STLB miss.
    found = run(machine(tlb(1, 2), tlb(2, 2)), [VMALLOC + i for i in range(3)], [A, B, A, C, B, A])
    assert found["l1_miss_positions"] == [0, 1, 3, 4, 5]
    assert found["stlb_miss_positions"] == [0, 1, 3, 5]


def test_an_stlb_hit_refreshes_it() -> None:
    # L1 1, STLB 2: A B, then A hits the STLB and becomes recent, C drops B.
    found = run(machine(tlb(1, 1), tlb(2, 2)), [VMALLOC + i for i in range(3)], [A, B, A, C, A, B])
    assert found["stlb_miss_positions"] == [0, 1, 3, 5]


def test_inclusive_stlb_eviction_drops_the_l1_entry() -> None:
    # As above with L1 2: C drops A from STLB and with it from L1, though L1 used A last; C then fills the
    # empty way.
    pages, order = [VMALLOC + i for i in range(3)], [A, B, A, C, B]
    inclusive = run(machine(tlb(1, 2), tlb(2, 2), inclusion="inclusive"), pages, order)
    assert inclusive["l1_miss_positions"] == [0, 1, 3]
    plain = run(machine(tlb(1, 2), tlb(2, 2)), pages, order)
    assert plain["l1_miss_positions"] == [0, 1, 3, 4]


def test_inclusive_drops_from_every_l1_array() -> None:
    both = machine(
        tlb(1, 2, serves=["load"], name="d"),
        tlb(1, 2, serves=["fetch"], name="i"),
        tlb(2, 1),
        inclusion="inclusive",
    )
    found = run(both, [VMALLOC, VMALLOC + 1], [A, A, B, A, A], kinds=[LOAD, FETCH, LOAD, LOAD, FETCH])
    # B drops A from both; then A walks for the load, and the fetch misses L1 but finds the STLB.
    assert found["l1_miss_positions"] == [0, 1, 2, 3, 4]
    assert found["stlb_miss_positions"] == [0, 2, 3]


def test_exclusive_levels_add_up() -> None:
    # 1 + 2 entries hold three pages in any order; a cycle over three never walks again.
    pages = [VMALLOC + i for i in range(4)]
    found = run(machine(tlb(1, 1), tlb(2, 2), inclusion="exclusive"), pages, [A, B, C, A, B, C, D, A])
    # After C: L1 C, STLB A B. A: from STLB, C down. B, C alike: L1 C, STLB (A, B). D: C down, drops A (A
    # older).
    assert found["stlb_miss_positions"] == [0, 1, 2, 6, 7]
    assert found["l1_miss_positions"] == list(range(8))


# ---------------------------------------------------------------- walks and paging-structure caches

PSCS = (
    Psc(name="PDE cache", level=2, entries=1),
    Psc(name="PDPTE cache", level=3, entries=1),
    Psc(name="PML4E cache", level=4, entries=1),
)
GIB = 1 << 18
"""Pages in 1 GiB."""


def levels(found: dict[str, Any]) -> list[list[str]]:
    return [[level for level, _ in walk] for walk in found["walks"]]


def test_cold_walks_read_every_level_down_to_the_leaf() -> None:
    found = run(machine(tlb(1, 8)), [VMALLOC, VMALLOC + 512, VMALLOC + GIB], [0, 1, 2], [12, 21, 30])
    assert levels(found) == [["PML4E", "PDPTE", "PDE", "PTE"], ["PML4E", "PDPTE", "PDE"], ["PML4E", "PDPTE"]]


def test_a_walk_starts_below_the_lowest_hit_and_fills_what_it_passed() -> None:
    # No TLB reuse (1 entry). Page 0: cold, fills all three. Page 1: PDE hit, 1 read. Page 512: other PDE:
    # PDPTE hit, 2 reads, PDE filled. Page 1 GiB: PML4E hit, 3 reads, PDPTE and PDE filled. Page 512 GiB: 4
    # reads.
    found = run(machine(tlb(1, 1), *PSCS), [0, 1, 512, 513, GIB, GIB + 1, 512 * GIB], list(range(7)))
    assert [len(walk) for walk in found["walks"]] == [4, 1, 2, 1, 3, 1, 4]
    counts = found["counts"]
    assert [counts[f"psc_hits_{name} cache"] for name in ("PDE", "PDPTE", "PML4E")] == [3, 1, 1]
    assert (counts["walk_refs"], counts["walks_by_refs_1"]) == (16, 3)


def test_a_large_leaf_does_not_use_the_level_that_holds_it() -> None:
    # 2M leaves probe from the PDPTE cache; the PDE cache is neither probed nor filled.
    found = run(machine(tlb(1, 1), *PSCS), [0, 512, 1024, 1025], [0, 1, 2, 3, 2], [21, 21, 12, 12])
    # 0: 3 reads. 512: PDPTE hit, 1 read. 1024 (4K): PDE miss, PDPTE hit, 2 reads. 1025: PDE hit, 1.
    assert [len(walk) for walk in found["walks"]] == [3, 1, 2, 1, 1]


def test_a_large_leaf_is_not_looked_for_in_the_level_that_holds_it() -> None:
    pscs = (Psc(name="PDE", level=2, entries=8), *PSCS[1:])
    found = run(machine(tlb(1, 1), *pscs), [0, 512], [0, 1, 0, 1], 21)
    assert [len(walk) for walk in found["walks"]] == [3, 1, 1, 1]
    assert "psc_hits_PDE" not in found["counts"]


def test_levels_above_the_hit_are_not_touched() -> None:
    # PDE cache of 8, PML4E cache of 2 with LRU. Walks under X (512 GiB no. 0), Y (no. 1), then X again by a
    # PDE hit: the PML4E of X is not refreshed, so Z drops X's, and a new PDE and PDPTE under X reads all
    # four.
    pscs = (Psc(name="PDE", level=2, entries=8), Psc(name="PML4E", level=4, entries=2))
    pages = [0, 512 * GIB, 1, 1024 * GIB, 2 * GIB]
    found = run(machine(tlb(1, 1), *pscs), pages, [0, 1, 2, 3, 4])
    assert [len(walk) for walk in found["walks"]] == [4, 4, 1, 4, 4]


def test_psc_sets() -> None:
    # 2 sets of 1: PDE keys 0 and 2 fight, 1 does not.
    pscs = (Psc(name="PDE", level=2, entries=2, ways=1),)
    found = run(machine(tlb(1, 1), *pscs), [0, 512, 1024], [0, 1, 2, 1, 0])
    assert [len(walk) for walk in found["walks"]] == [4, 4, 4, 1, 4]


def test_textbook_setassoc_on_a_cold_gibibyte() -> None:
    # 512 pages, one in each 2M of 1 GiB: the first walk reads 4, the others hit the PDPTE cache and read 2.
    found = run(textbook_setassoc(), [VMALLOC + 512 * i for i in range(512)], list(range(512)))
    assert found["counts"]["walk_refs"] == 4 + 511 * 2
    # As 2M leaves: 3, then 1 each.
    found = run(textbook_setassoc(), [VMALLOC + 512 * i for i in range(512)], list(range(512)), 21)
    assert found["counts"]["walk_refs"] == 3 + 511


def test_textbook_fullassoc_has_no_psc() -> None:
    found = run(textbook_fullassoc(), [VMALLOC + i for i in range(100)], list(range(100)))
    assert found["counts"]["walk_refs"] == 400


def test_five_levels_and_sv39() -> None:
    five = Geometry("x86-64-5level", (9,) * 5, (Leaf("base", 12, 1),), 0, 1 << 57)
    assert levels(run(machine(tlb(1, 1)), [0], [0], geometry=five)) == [
        ["PML5E", "PML4E", "PDPTE", "PDE", "PTE"]
    ]
    sv39 = Geometry("sv39", (9,) * 3, (Leaf("base", 12, 1),), 0, 1 << 39)
    assert levels(run(machine(tlb(1, 1)), [0], [0], geometry=sv39)) == [["PDPTE", "PDE", "PTE"]]


# ---------------------------------------------------------------- nested paging: the reference's section 6.3


@pytest.mark.parametrize(
    ("guest_leaf", "host_leaf", "references"),
    [(12, "4K", 24), (12, "2M", 19), (21, "4K", 19), (21, "2M", 15), (30, "1G", 8)],
)
def test_cold_nested_walk(guest_leaf: int, host_leaf: str, references: int) -> None:
    found = run(machine(tlb(1, 1), guest=Guest(host_leaf=host_leaf)), [VMALLOC], [0], guest_leaf)
    assert found["counts"]["walk_refs"] == references


def test_cold_nested_walk_with_five_levels() -> None:
    five = Geometry("x86-64-5level", (9,) * 5, (Leaf("base", 12, 1),), 0, 1 << 57)
    found = run(machine(tlb(1, 1), guest=Guest(host_levels=5)), [0], [0], geometry=five)
    assert found["counts"]["walk_refs"] == 35


def test_warm_nested_walk() -> None:
    # All upper levels cached in both dimensions: host leaf of the table page, guest leaf, host leaf of the
    # data: 3. With the host translation of the table page cached too: 2.
    host = [Psc(name="host PDE", level=2, entries=64)]
    warm = run(machine(tlb(1, 1), PSCS[0], guest=Guest(host_psc=host)), [0, 1], [0, 1], frame=[1, 2])
    assert levels(warm)[1] == ["host", "PTE", "host"]
    nested = Guest(host_psc=host, nested_entries=64)
    warmer = run(machine(tlb(1, 1), PSCS[0], guest=nested), [0, 1], [0, 1], frame=[1, 2])
    assert levels(warmer)[1] == ["PTE", "host"]


def test_a_guest_entry_covers_the_smaller_leaf() -> None:
    pages = [VMALLOC, VMALLOC + 1]
    assert run(machine(tlb(1, 4), guest=Guest(host_leaf="4K")), pages, [0, 1], 21)["l1_miss_positions"] == [
        0,
        1,
    ]
    assert run(machine(tlb(1, 4), guest=Guest(host_leaf="2M")), pages, [0, 1], 21)["l1_miss_positions"] == [0]


@pytest.mark.parametrize(("host_leaf", "misses"), [("4K", [0, 1]), ("2M", [0])])
def test_a_guest_coalesces_what_the_host_keeps_together(host_leaf: Any, misses: list[int]) -> None:
    hardware = machine(tlb(1, 4, coalesce=4), guest=Guest(host_leaf=host_leaf))
    assert run(hardware, [VMALLOC, VMALLOC + 1], [0, 1], contiguous=14)["l1_miss_positions"] == misses


# ---------------------------------------------------------------- CPUs, spaces, events


def test_each_cpu_has_its_own() -> None:
    found = run(machine(tlb(1, 4), tlb(2, 8), *PSCS), [VMALLOC], [0, 0, 0, 0], cpus=[0, 1, 1, 0])
    assert found["stlb_miss_positions"] == [0, 1]
    assert found["counts"]["walk_refs"] == 8


def test_spaces_are_part_of_the_tag() -> None:
    # One address in spaces 1 and 2 is two entries, and two PSC entries.
    found = run(machine(tlb(1, 4), *PSCS), [0, 0], [0, 1, 0, 1], spaces=[1, 2])
    assert found["l1_miss_positions"] == [0, 1]
    assert found["counts"]["walk_refs"] == 8


def walk_positions(events: list[Any], order: list[int], pages: list[int], **more: Any) -> list[int]:
    slots = more.pop("slots", 0)
    one = machine(tlb(1, 8), tlb(2, 16), *PSCS, spaces=AddressSpaces(slots=slots))
    return run(one, pages, order, events=np.concatenate(events), **more)["stlb_miss_positions"]


def test_flush_all_before_its_position() -> None:
    assert walk_positions([event(1, FLUSH_ALL)], [0, 0, 0], [VMALLOC]) == [0, 1]


def test_flush_on_one_cpu() -> None:
    positions = walk_positions([event(2, FLUSH_ALL, cpu=1)], [0, 0, 0, 0], [VMALLOC], cpus=[0, 1, 0, 1])
    assert positions == [0, 1, 3]


def test_flush_local_keeps_the_global_space() -> None:
    assert walk_positions([event(2, FLUSH_LOCAL)], [0, 1, 0, 1], [5, 6], spaces=[0, 3]) == [0, 1, 3]


@pytest.mark.parametrize("kind", [FLUSH_RANGE, UNMAP])
def test_a_range_drops_what_it_touches_and_the_psc(kind: int) -> None:
    # [4 KiB * 1, 4 KiB * 2) drops page 1 and a 2M entry is dropped by any byte of it.
    one = [event(3, kind, start=1 << 12, end=2 << 12)]
    assert walk_positions(one, [0, 1, 2, 0, 1, 2], [0, 1, 2]) == [0, 1, 2, 4]
    last_byte = [event(1, kind, start=(2 << 21) - 1, end=2 << 21)]
    assert walk_positions(last_byte, [0, 0], [512], leaf=21) == [0, 1]
    after = [event(1, kind, start=2 << 21, end=3 << 21)]
    assert walk_positions(after, [0, 0], [512], leaf=21) == [0]
    found = run(machine(tlb(1, 8), *PSCS), [0, 1], [0, 1], events=event(1, kind, start=1 << 40, end=1 << 41))
    assert [len(walk) for walk in found["walks"]] == [4, 4]


def test_ranges_are_where_the_trace_has_them() -> None:
    # The mapping has moved pages 5 and 6 to 105 and 106: the range of page 5 drops the entry of 105 alone.
    mapped = mapping([105, 106])
    order, flush = [0, 1, 0, 1], event(2, FLUSH_RANGE, start=5 << 12, end=6 << 12)
    found = simulate(machine(tlb(1, 8)), [5, 6], mapped, order, [LOAD] * 4, events=flush)
    assert found["stlb_miss_positions"] == [0, 1, 2]


def test_a_switch_without_slots_drops_all_but_global() -> None:
    switch = [event(2, SWITCH, space=7)]
    assert walk_positions(switch, [0, 1, 0, 1], [5, 6], spaces=[0, 7]) == [0, 1, 3]


def test_a_switch_with_slots_drops_the_space_that_falls_out() -> None:
    # Slots 2: 1, 2 (both stay), back to 1 (refreshed), 3: 2 falls out. 1 still there, 2 not.
    switches = [event(0, SWITCH, space=1), event(1, SWITCH, space=2), event(2, SWITCH, space=1),
                event(3, SWITCH, space=3)]  # fmt: skip
    assert walk_positions(switches, [0, 1, 0, 2, 0, 1], [5, 6, 7], spaces=[1, 2, 3], slots=2) == [0, 1, 3, 5]


def test_a_switch_to_a_kernel_thread_drops_nothing() -> None:
    assert walk_positions([event(1, SWITCH, space=0)], [0, 0], [5], spaces=[7]) == [0]
    # Nor does it take a slot: 1 and 2 stay in two slots.
    switches = [event(0, SWITCH, space=1), event(1, SWITCH, space=2), event(2, SWITCH, space=0)]
    assert walk_positions(switches, [0, 1, 0, 1], [5, 6], spaces=[1, 2], slots=2) == [0, 1]


def test_a_range_beyond_the_ceiling_is_a_full_flush() -> None:
    # [0, 8 KiB) drops pages 0 and 1 only and costs 2 * 10; one byte more drops all and costs 300.
    pages, order = [0, 1, 2, 50], [0, 1, 2, 3, 0, 1, 2, 3]
    hardware = machine(tlb(1, 8), flush=Flush(full_cycles=300, page_cycles=10, ceiling_pages=2))
    small = run(hardware, pages, order, events=event(4, FLUSH_RANGE, end=2 << 12))
    large = run(hardware, pages, order, events=event(4, FLUSH_RANGE, end=(2 << 12) + 1))
    assert small["stlb_miss_positions"] == [0, 1, 2, 3, 4, 5]
    assert large["stlb_miss_positions"] == list(range(8))
    assert (small["cycles"]["flush"], large["cycles"]["flush"]) == (20, 300)
    assert [each["counts"]["entries_flushed"] for each in (small, large)] == [2, 4]
