import numpy as np
import pytest

import fakes
from pagewalk.hardware.machine import Machine, Memory, Tlb
from pagewalk.linux.geometry import geometry
from pagewalk.linux.mapping import Mapping, Region
from pagewalk.replay.result import RegionCost, Replay
from pagewalk.replay.tally import leaves, stlb_coverage
from pagewalk.study import compare


def replay(mapping, *, machine="m", regions=(), **counts):
    counts = {
        "accesses": 2000,
        "l1_dtlb_misses": 40,
        "stlb_misses": 10,
        "walks": 10,
        "walk_refs": 25,
    } | counts
    return Replay(
        machine=machine,
        mapping=mapping,
        counts=counts,
        cycles={"walk": 500, "exposed": 300},
        memory={"page_tables": 8192, "rounding_waste": 0},
        by_region=list(regions),
    )


def test_measures_are_rates_for_1000_accesses_and_references_for_each_walk():
    found = {
        (m.name, m.unit): m.values for m in compare.measures([replay("base"), replay("pmd", walk_refs=15)])
    }
    assert found["walk cycles", "per 1000 accesses"] == (250, 250)
    assert found["exposed cycles", "per 1000 accesses"] == (150, 150)
    assert found["L1 DTLB misses", "per 1000 accesses"] == (20, 20)
    assert found["page walks", "per 1000 accesses"] == (5, 5)
    assert found["walk references", "per 1000 accesses"] == (12.5, 7.5)
    assert found["walk references", "per walk"] == (2.5, 1.5)
    assert found["page tables", "bytes"] == (8192, 8192)


def test_a_figure_that_a_replay_lacks_is_left_out():
    names = {m.name for m in compare.measures([replay("base"), replay("pmd")])}
    assert "STLB reach" not in names
    assert "rounding waste" in names


def test_stlb_misses_stand_beside_walks_only_where_they_differ():
    same = {m.name for m in compare.measures([replay("base")])}
    differ = {m.name for m in compare.measures([replay("base", stlb_misses=11)])}
    assert differ - same == {"STLB misses"}


def test_no_access_divides_by_nothing():
    nothing = replay("base", accesses=0, walks=0, walk_refs=0, stlb_misses=0)
    assert all(m.values == (0.0,) for m in compare.measures([nothing]) if m.unit != "bytes")


def test_change_of_something_out_of_nothing_is_undefined():
    assert compare.change(4, 3) == -0.25
    assert compare.change(0, 0) == 0
    assert compare.change(0, 3) is None


def test_callers_add_up_their_regions_wherever_an_area_lies():
    def hash_table(start, leaf, cycles, waste=0):
        return RegionCost(
            name=f"vmalloc {start:#x}", caller="alloc_large_system_hash+0x197/0x27c", leaf=leaf,
            size_bytes=64, accesses=5, stlb_misses=cycles // 10, walk_cycles=cycles, waste_bytes=waste,
        )  # fmt: skip

    direct = RegionCost(name="direct map", accesses=90, leaf="mixed", walk_cycles=100)
    before = replay(
        "base", regions=[hash_table(0x1000, "base", 300), hash_table(0x2000, "base", 200), direct]
    )
    after = replay(
        "pmd", regions=[direct, hash_table(0x200000, "PMD", 30, 7), hash_table(0x2000, "base", 20)]
    )
    hashes, others = compare.callers(before, after)
    assert hashes == ("alloc_large_system_hash", 2, 128, 10, ("base", "mixed"), (50, 5), (500, 50), (0, 7))
    assert (hashes.saved_cycles, hashes.paid_bytes) == (450, 7)
    assert (others.name, others.saved_cycles, others.paid_bytes) == ("direct map", 0, 0)


def test_a_caller_that_costs_only_under_the_second_mapping_is_not_lost():
    new = RegionCost(name="vmalloc 0x1", caller="late", walk_cycles=900)
    old = RegionCost(name="vmalloc 0x2", caller="early", walk_cycles=100)
    late, early = compare.callers(replay("base", regions=[old]), replay("pmd", regions=[old, new]))
    assert (late.name, late.walk_cycles, late.saved_cycles) == ("late", (0, 900), -900)
    assert early.name == "early"


def test_paid_memory_is_waste_and_page_tables_together():
    result = fakes.result(
        fakes.replay("base", page_tables=1000), fakes.replay("pmd", page_tables=400, waste=5000)
    )
    assert compare.comparisons(result)[0].paid_bytes == 4400


@pytest.mark.parametrize(
    ("mappings", "pair"),
    [
        (["base", "pmd"], ("base", "pmd")),
        (["pmd", "recorded", "base"], ("base", "pmd")),
        (["recorded", "pmd"], ("recorded", "pmd")),
        (["base"], None),
    ],
)
def test_which_two_mappings_are_compared(mappings, pair):
    found = compare.comparisons(fakes.result(*map(replay, mappings)))
    assert [(c.before.mapping, c.after.mapping) for c in found] == ([pair] if pair else [])


def test_each_machine_is_compared_with_itself():
    result = fakes.result(*(replay(m, machine=cpu) for m in ("base", "pmd") for cpu in ("a", "b")))
    assert [(c.before.machine, c.after.machine) for c in compare.comparisons(result)] == [
        ("a", "a"),
        ("b", "b"),
    ]
    assert {name: len(replays) for name, replays in compare.by_machine(result).items()} == {"a": 2, "b": 2}


def test_callers_taken_together_keep_every_sum():
    pair = compare.comparisons(fakes.many_regions())[0]
    rest = compare.together(pair.callers)
    assert rest.name == "40 others"
    assert rest.walk_cycles[0] == sum(r.walk_cycles for r in pair.before.by_region)
    assert rest.walk_cycles[1] == sum(r.walk_cycles for r in pair.after.by_region)
    assert rest.paid_bytes == sum(r.waste_bytes for r in pair.after.by_region)
    assert rest.size_bytes == sum(r.size_bytes for r in pair.before.by_region)


def test_a_full_stlb_covers_by_leaf_size():
    # Three 4 KiB pages and two 2 MiB leaves (touched in 4 base pages) on an STLB of 2 entries for all sizes.
    tlb = [Tlb(name="L1", level=1, entries=1, ways=0), Tlb(name="STLB", level=2, entries=2, ways=0)]
    machine = Machine(schema="pagewalk.machine/1", name="m", tlb=tlb, memory=Memory(latency_cycles=1))
    pages = np.array([1, 2, 3, 512, 513, 1024, 1025])
    shift = np.array([12] * 3 + [21] * 4, np.uint8)
    mapping = Mapping(
        "mixed", geometry("x86-64"), pages, shift, pages, shift, np.zeros(7, np.int32), (Region("all"),)
    )
    covered = stlb_coverage(machine, leaves(mapping))
    assert covered["stlb_reach"] == 2 * (2 << 20)
    assert covered["stlb_holds"] == (2 + 4) * 4096


def test_reach_is_not_that_of_the_direct_maps_1_gib_leaves():
    """They hold most of the touched pages, but what vmalloc maps has 4 KiB or 2 MiB leaves."""
    tlb = [
        Tlb(name="L1", level=1, entries=1, ways=0),
        Tlb(name="STLB", level=2, entries=8, ways=0, holds=["4K", "2M"]),
        Tlb(name="STLB 1G", level=2, entries=4, ways=0, holds=["1G"]),
    ]
    machine = Machine(schema="pagewalk.machine/1", name="m", tlb=tlb, memory=Memory(latency_cycles=1))
    assert stlb_coverage(machine, [(12, 3, 3), (30, 100, 1)])["stlb_reach"] == 8 << 12
    assert stlb_coverage(machine, [(12, 3, 3), (21, 4, 1), (30, 100, 1)])["stlb_reach"] == 8 << 21
    assert stlb_coverage(machine, [(30, 100, 1)])["stlb_reach"] == (8 << 21) + (4 << 30)
