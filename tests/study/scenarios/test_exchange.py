"""The exchange's case: what freeing huge read-only areas does, by hand from the reference's section 4.

Eight areas of 2 MiB in one 1 GiB leaf of the direct map; four are freed with memory to spare, four when not
one page is left.
"""

import pytest

from pagewalk.study.play.play import play
from pagewalk.study.scenario import read

AREAS, PAGES = 8, 512


@pytest.fixture(scope="module")
def lives():
    scenario = read("exchange")
    return {
        table.name: play("exchange", table, "x86-64", scenario.event, "exchange.toml").life
        for table in scenario.kernel
    }


def last(life, key):
    return life.counts[key][-1]


@pytest.mark.parametrize("name", ["v8", "5.13", "6.12", "6.15", "7.3"])
def test_every_release_resets_page_by_page(lives, name):
    """set_memory_ro keeps each 2 MiB leaf (1 GiB is split once); freeing splits it at the first page."""
    life = lives[name]
    assert last(life, "split") == 1 + 4
    assert last(life, "attribute_calls") == AREAS + AREAS * 2 * PAGES
    assert last(life, "flush-all") == (AREAS + 1) + 4 * (1 + 1) + 4
    growth = life.direct_map_kb["DirectMap4k"][-1] - life.direct_map_kb["DirectMap4k"][0]
    assert growth == 4 * 2048


@pytest.mark.parametrize("name", ["v8", "5.13", "6.12", "6.15", "7.3"])
def test_without_a_page_for_the_split_every_call_fails_and_frames_stay_read_only(lives, name):
    life = lives[name]
    assert last(life, "failure") == 4 * 2 * PAGES
    assert life.failures == {"reset: no page for a table": 4 * 2 * PAGES}
    assert last(life, "left_read_only") == 4 * PAGES
    assert last(life, "left_absent") == 0


@pytest.mark.parametrize("name", ["block", "range"])
def test_by_block_or_by_range_nothing_is_split_and_nothing_fails(lives, name):
    life = lives[name]
    assert last(life, "split") == 1
    assert last(life, "attribute_calls") == AREAS + AREAS * 2
    assert last(life, "flush-all") == (AREAS + 1) + AREAS
    assert (last(life, "failure"), last(life, "left_read_only")) == (0, 0)


def test_base_pages_pay_when_permissions_are_set(lives):
    """Each area's 2 MiB of the direct map is split by its own set_memory_ro; freeing then cannot fail."""
    life = lives["base"]
    assert last(life, "split") == 1 + AREAS
    assert last(life, "flush-all") == 1 + 2 * AREAS + AREAS
    assert (last(life, "failure"), last(life, "left_read_only")) == (0, 0)
    frees = [i for i, event in enumerate(life.events) if event.startswith("vfree")]
    assert life.counts["split"][frees[0] - 1] == last(life, "split"), "none when freed"


def test_until_memory_is_short_all_ways_leave_the_same_direct_map_usable(lives):
    for life in lives.values():
        short = life.events.index("hold_memory")
        assert life.counts["failure"][short] == life.counts["left_read_only"][short] == 0
