"""The oracle's data caches against cases worked out by hand."""

from typing import Any

import pytest

from pagewalk.hardware.machine import Cache, Psc, Walker
from reference import FETCH, LOAD, simulate
from reference_caches import default_entry_address
from strategies import X86, machine, mapping, tlb


def run(a_machine: Any, pages: list[int], order: list[int], **more: Any) -> dict[str, Any]:
    """Load the pages in this order."""
    return simulate(a_machine, pages, mapping(pages), order, [LOAD] * len(order), **more)


def cache(name: str, lines: int, ways: int, latency: int, **more: Any) -> Cache:
    return Cache(name=name, size_bytes=lines * 64, ways=ways, latency_cycles=latency, **more)


def places(found: dict[str, Any]) -> list[str]:
    """Where the leaf entry of each walk was found."""
    return [walk[-1][1] for walk in found["walks"]]


LEAF_ONLY = Psc(name="PDE", level=2, entries=64)


def test_walk_references_fill_and_hit_lines() -> None:
    # Eight 8-byte entries in a line: pages 0..7 share the line of their PTEs.
    found = run(machine(tlb(1, 1), LEAF_ONLY, cache("L1D", 64, 64, 5)), list(range(9)), [0, 1, 7, 8])
    assert places(found) == ["memory", "L1D", "L1D", "memory"]
    # Page 0 reads four entries from memory; start cost 3 each walk: 4*100 + 5 + 5 + 100.
    assert found["cycles"]["walk"] == 510
    assert found["walk_refs_in"] == {"memory": 5, "L1D": 2}
    assert found["caches"]["L1D"] == {"walk_misses": 5, "walk_hits": 2}
    started = machine(tlb(1, 1), LEAF_ONLY, cache("L1D", 64, 64, 5), walker=Walker(start_cycles=3))
    assert run(started, list(range(9)), [0, 1, 7, 8])["cycles"]["walk"] == 522


def by_page(level: int, page: int, space: int) -> int:
    """Leaf entries on a line each; upper entries out of the way, one line each."""
    return 64 * (page if level == 1 else 1000 * level + page)


def test_a_read_enters_where_the_walker_says() -> None:
    two = (cache("L1D", 8, 8, 5), cache("L2", 64, 64, 14))
    found = run(machine(tlb(1, 1), LEAF_ONLY, *two, walker=Walker(enters="L2")), [0, 1], [0, 1])
    assert places(found) == ["memory", "L2"]
    assert "walk_misses" not in found["caches"]["L1D"]


def test_demand_levels_fill_on_the_way_back() -> None:
    # L1D of 1 line, L2 large: the second reading of a line that left L1D hits L2 and returns to L1D.
    two = (cache("L1D", 1, 1, 5), cache("L2", 64, 64, 14))
    found = run(machine(tlb(1, 1), LEAF_ONLY, *two), [0, 1], [0, 1, 0, 0], entry_address=by_page)
    assert places(found) == ["memory", "memory", "L2"]
    two_pages = run(
        machine(tlb(1, 1), LEAF_ONLY, *two), [0, 1, 2], [0, 1, 2, 0, 1], entry_address=lambda level, p, s: 576
    )
    assert places(two_pages) == ["L1D"] * 5  # PML4E, PDPTE, PDE came first by the same line


def test_a_victim_level_gets_what_the_level_above_evicts() -> None:
    # L2 of 1 line, L3 victim of 4. Lines 0, 1: 0 is evicted into L3. 0 again: hit in L3, moves up, 1 sinks.
    two = (cache("L2", 1, 1, 14), cache("L3", 4, 4, 40, fill="victim"))
    found = run(machine(tlb(1, 1), LEAF_ONLY, *two), [0, 1], [0, 1, 0, 1], entry_address=by_page)
    assert places(found) == ["memory", "memory", "L3", "L3"]


def test_a_victim_level_does_not_keep_what_moved_up() -> None:
    # L2 1 line, L3 victim 1 line: 0, 1 (0 in L3), 0 (up; 1 sinks into the emptied L3), 1 hits. With a copy
    # left in L3 the last reading of 1 would still hit, but 0 would have been dropped for it; 2 then drops 0
    # from L3.
    two = (cache("L2", 1, 1, 14), cache("L3", 1, 1, 40, fill="victim"))
    found = run(machine(tlb(1, 1), LEAF_ONLY, *two), [0, 1, 2], [0, 1, 0, 1, 2, 0], entry_address=by_page)
    assert places(found) == ["memory", "memory", "L3", "L3", "memory", "memory"]


def test_an_inclusive_level_takes_its_victims_out_above() -> None:
    # L1D 2 lines, inclusive L2 2 lines; the walk for page 0 leaves (PDE line, line 0) in both, line 1 drops
    # the PDE's. Line 0 hits L1D (L2 not touched); line 2 drops 0 from L2, and so from L1D.
    pair = (cache("L1D", 2, 2, 5), cache("L2", 2, 2, 14, inclusive=True))
    order = [0, 1, 0, 2, 0]
    found = run(machine(tlb(1, 1), LEAF_ONLY, *pair), [0, 1, 2], order, entry_address=by_page)
    assert places(found) == ["memory", "memory", "L1D", "memory", "memory"]
    # L2 is filled before L1D: line 0 leaves both, line 2 takes its place, and line 1 stays in L1D.
    found = run(machine(tlb(1, 1), LEAF_ONLY, *pair), [0, 1, 2], [0, 1, 0, 2, 1], entry_address=by_page)
    assert places(found) == ["memory", "memory", "L1D", "memory", "L1D"]
    loose = (cache("L1D", 2, 2, 5), cache("L2", 2, 2, 14))
    found = run(machine(tlb(1, 1), LEAF_ONLY, *loose), [0, 1, 2], order, entry_address=by_page)
    assert places(found) == ["memory", "memory", "L1D", "memory", "L1D"]


@pytest.mark.parametrize(("shared", "second"), [(False, "memory"), (True, "L2")])
def test_shared_and_private_levels(shared: bool, second: str) -> None:
    one = machine(tlb(1, 1), LEAF_ONLY, cache("L2", 64, 64, 14, shared=shared))
    assert places(run(one, [0], [0, 0], cpus=[0, 1])) == ["memory", second]


@pytest.mark.parametrize(("shared", "again"), [(False, "L1D"), (True, "memory")])
def test_an_inclusive_shared_level_takes_its_victims_out_of_every_cpu(shared: bool, again: str) -> None:
    # CPU 0 leaves line 0 in its L1D and in L2; CPU 1 reads lines 1 and 2, which drops line 0 from a shared L2
    # of 2 lines. All four entries of a walk share the page's line: where was the first found?
    pair = (cache("L1D", 8, 8, 5), cache("L2", 2, 2, 14, inclusive=True, shared=shared))
    found = run(
        machine(tlb(1, 1), *pair),
        [0, 1, 2, 3],
        [0, 1, 2, 3, 0],
        cpus=[0, 1, 1, 0, 0],
        entry_address=lambda level, page, space: 64 * page,
    )
    assert found["walks"][4][0] == ("PML4E", again)


def test_the_walker_and_the_program_enter_where_they_do() -> None:
    two = (cache("L1D", 8, 8, 5), cache("L2", 64, 64, 14))
    found = run(machine(tlb(1, 1), *two, walker=Walker(enters="L2")), [0], [0], cache_mode="full")
    assert found["caches"]["L1D"] == {"data_misses": 1}
    assert found["caches"]["L2"] == {"walk_misses": 4, "data_misses": 1}


def test_fetches_do_not_pass_the_data_caches() -> None:
    one, pages = machine(tlb(1, 1), cache("L1D", 64, 64, 5)), [0]
    found = simulate(one, pages, mapping(pages), [0, 0], [FETCH, LOAD], cache_mode="full")
    assert found["caches"]["L1D"] == {"walk_misses": 4, "data_misses": 1}


def test_who_evicts_whom() -> None:
    # One line of cache: the data drops the last line of its walk, the next walk's first drops the data's.
    one = machine(tlb(1, 1), cache("L1D", 1, 1, 5))
    found = run(one, [0, 1], [0, 1], cache_mode="full")["caches"]["L1D"]
    assert (found["walks_evicted_by_data"], found["data_evicted_by_walks"]) == (2, 1)


def test_full_mode_sends_the_data_through_too() -> None:
    # Page 0 in frame 1: line 64 of offset 0, line 65 of offset 64. The walk comes first, then its access.
    one = machine(tlb(1, 1), cache("L1D", 64, 64, 5))
    found = run(one, [0], [0, 0, 0], cache_mode="full", offsets=[0, 63, 64])
    assert found["caches"]["L1D"] == {"walk_misses": 4, "data_misses": 2, "data_hits": 1}
    assert found["caches"]["memory"] == {"walk_hits": 4, "data_hits": 2}
    assert "data_hits" not in run(one, [0], [0, 0, 0])["caches"]["L1D"]


def test_data_and_walks_compete() -> None:
    # A cache of one line: every access drops the line of the other.
    one = machine(tlb(1, 1), LEAF_ONLY, cache("L1D", 1, 1, 5))
    found = run(one, [0, 1], [0, 1, 0], cache_mode="full")
    assert places(found) == ["memory"] * 3
    assert found["caches"]["L1D"]["data_misses"] == 3


def test_table_entries_of_levels_and_spaces_do_not_share_lines() -> None:
    address = default_entry_address(X86)
    places = {
        address(level, page, space) // 64
        for level in (1, 2, 3, 4)
        for page in (0, 8, 512)
        for space in (0, 1)
    }
    # Level 1: pages 0, 8, 512 have three lines. Level 2: 0 and 8 share an entry, 512 is the next entry,
    # same line. Levels 3, 4: one line each. Six lines, in each of two spaces.
    assert len(places) == 2 * (3 + 1 + 1 + 1)
