"""The figure of docs/splits.md: what the model says about programs that split the direct map."""

import sys

import pytest

from places import REPOSITORY

TOOLS = REPOSITORY / "tools"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    try:
        import direct_map_splits

        yield direct_map_splits
    finally:
        sys.path.remove(str(TOOLS))


def test_the_measured_figures_are_those_of_directmap4k(tool):
    """Reference M8 and M9: DirectMap4k in kB before and after, 2048 kB for each split leaf."""
    assert {
        "fresh, after 512 to 2048": round((462_684 - 87_900) / 2048 / 512, 2),
        "full, after 512": round((538_460 - 94_044) / 2048 / 512, 2),
        "full, after 2048": round((2_340_700 - 94_044) / 2048 / 2048, 2),
    } == tool.MEASURED


@pytest.mark.parametrize("pages", [20, 64])
def test_on_fresh_memory_a_leaf_is_split_for_each_pageblock_of_unmovable_pages(tool, pages):
    """512 instances take 512 x (pages + 3) pages, one after the other, from pageblocks of 512."""
    blocks = tool.INSTANCES * (pages + tool.IMAGES) / 512
    assert tool.splits(pages, 0) == pytest.approx(blocks, abs=2)


def test_on_full_memory_shorter_runs_split_more_and_a_measured_footprint_meets_the_measured_band(tool):
    low, high = (tool.splits(64, run) / tool.INSTANCES for run in (256, 64))
    assert tool.splits(64, 0) / tool.INSTANCES < low < tool.MEASURED["full, after 512"]
    assert high > tool.MEASURED["full, after 2048"]
