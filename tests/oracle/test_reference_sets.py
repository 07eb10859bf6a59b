"""The oracle's sets against cases worked out by hand: each replacement policy, and index expressions."""

import pytest

from reference import LOAD, simulate
from reference_sets import Row, index_value
from strategies import VMALLOC, machine, mapping, tlb

A, B, C, D, E = range(5)


def misses(policy: str, ways: int, order: list[int]) -> list[int]:
    """Positions that miss in one fully associative array of this policy."""
    one = machine(tlb(1, ways, policy=policy))
    pages = [VMALLOC + i for i in range(16)]
    return simulate(one, pages, mapping(pages), order, [LOAD] * len(order))["l1_miss_positions"]


def test_lru_drops_the_least_recently_used() -> None:
    # A B in, A touched, C drops B; A stays, B must be filled again and drops C.
    assert misses("lru", 2, [A, B, A, C, A, B]) == [0, 1, 3, 5]


def test_fifo_drops_the_oldest_whatever_was_hit() -> None:
    # A B in, A hit, C drops A (the oldest), A drops B, B drops C.
    assert misses("fifo", 2, [A, B, A, C, A, B]) == [0, 1, 3, 4, 5]


def test_random_draws_from_its_generator() -> None:
    # Set 0: x0 = 12345. x1 = (12345 * 1103515245 + 12345) & 0x7fffffff = 1406932606; x1 >> 16 = 21468, % 2
    # = 0. x2 = (1406932606 * 1103515245 + 12345) & 0x7fffffff = 654583775; >> 16 = 9988, % 2 = 0.
    # (1406932606, 654583775: the first values of the ANSI C example generator with seed 12345.) A B in; C
    # takes way 0 (A gone); B hits; A takes way 0 (C gone); C misses.
    assert misses("random", 2, [A, B, C, B, A, C]) == [0, 1, 2, 4, 5]


def test_random_generators_differ_by_set() -> None:
    # Set 1 starts at (2654435761 + 12345) & 0x7fffffff = 506964458.
    assert Row("random", 2, 1).seed == 506964458


def test_tree_plru_victim_follows_the_bits() -> None:
    # Fills A B C D into ways 0..3. After D: root points low (D is in the upper half), lower node points to
    # way 0 (B was touched last there). Touch A: root points high, lower node to B. Upper node points to C.
    # E drops C (way 2): true LRU would have dropped B.
    assert misses("tree-plru", 4, [A, B, C, D, A, E, B, D, A, C]) == [0, 1, 2, 3, 5, 9]


def test_tree_plru_of_three_ways_has_the_smaller_half_below() -> None:
    # Way 0 against ways 1 and 2. After A B C the root points to way 0: D drops A. Then the root points up,
    # and there to way 1: E drops B. Then to way 0: A drops D. C is there still; true LRU would have
    # dropped it.
    assert misses("tree-plru", 3, [A, B, C, D, E, A, C]) == [0, 1, 2, 3, 4, 5]


def test_tree_plru_bit_zero_is_the_lower_half() -> None:
    row = Row("tree-plru", 4, 0)
    row.keys = ["a", "b", "c", "d"]  # full, no way touched: all bits 0
    assert row.victim() == 0


def test_nru_keeps_one_bit_a_way() -> None:
    # A B mark ways 0, 1; C marks way 2: all would be set, so only way 2 stays set. D takes the lowest
    # clear: way 0 (A). Now ways 0, 2 set. Touch B: all set, only B's stays. A takes way 0 (D); ways 0, 1
    # set. D takes way 2 (C).
    assert misses("nru", 3, [A, B, C, D, B, A, D, B]) == [0, 1, 2, 3, 5, 6]


def test_nru_forgets_the_bit_of_an_emptied_way() -> None:
    row = Row("nru", 3, 0)
    for key in "abc":  # bits 0, 1; then all would be set: only 2
        row.put(key)
    row.hit("a")  # 0, 2
    row.drop(0)  # 2
    row.hit("b")  # 1, 2
    assert row.put("d") is None  # into way 0; all would be set: only 0
    assert row.victim() == 1


def test_nru_with_one_way() -> None:
    assert misses("nru", 1, [A, A, B, B, A]) == [0, 2, 4]


def test_srrip_fills_far_and_ages() -> None:
    # A B filled with 2; B hit: 0. C: no 3, all age to A 3, B 1; C takes A's way with 2. D: C 3, B 2: D
    # takes C's way (way 0). A: D 3, B 3: lowest way with 3 is way 0: A takes D's. B hits.
    assert misses("srrip", 2, [A, B, B, C, D, A, B]) == [0, 1, 3, 4, 5]


def test_plru4_in_the_group_after_the_last_used() -> None:
    row = Row("mru+1%3-plru4", 12, 0)
    for key in "abcdefghijkl":  # ways 0 to 11 in order; group 2 is used last
        row.put(key)
    # Group 0: its tree last saw way 3, then way 2 before: root points low, low node points to way 0.
    assert row.victim() == 0
    assert row.put("m") == "a"  # way 0; group 0 is the last used; its tree: root high, low node to way 1
    assert row.put("n") == "e"  # group 1, untouched since it was filled: way 4
    assert row.put("o") == "i"  # group 2: way 8
    assert row.put("p") == "c"  # group 0: root points to the upper half, whose node points to way 2
    row.hit("f")  # group 1 becomes the last used
    assert row.put("q") == "k"  # group 2: root high after way 8, node to way 10


@pytest.mark.parametrize("policy", ["lru", "fifo", "random", "tree-plru", "nru", "srrip"])
def test_empty_ways_are_filled_first_lowest_first(policy: str) -> None:
    row = Row(policy, 4, 0)
    for key in "abcd":
        assert row.put(key) is None
    row.drop(2)
    row.drop(1)
    assert row.put("e") is None
    assert row.keys == ["a", "e", None, "d"]


def test_filling_what_is_there_is_a_hit() -> None:
    row = Row("lru", 2, 0)
    row.put("a")
    row.put("b")
    assert row.put("a") is None
    assert row.put("c") == "b"


def test_index_expressions() -> None:
    assert index_value("VPN[3:0]", 0xABC) == 0xC
    assert index_value("VPN[2]", 0b100) == 1
    assert index_value("VPN[6:0] ^ VPN[13:7]", 0b0000011_0000101) == 0b0000110
    assert index_value("{VPN[9], VPN[6:0]}", 0b10_0000_0011) == 0b1000_0011
    assert index_value("{VPN[0], VPN[1] ^ VPN[2], VPN[3]}", 0b0011) == 0b110
    assert index_value("VPN[0] ^ {VPN[1]}", 0b11) == 0
