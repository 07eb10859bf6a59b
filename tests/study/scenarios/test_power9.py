"""The POWER9 scenarios: hash sizes by the formula, and misses that a few lines of arithmetic give too."""

import pytest

from pagewalk.hardware.load import load
from pagewalk.study.play.result import lives_of, played
from pagewalk.study.replays import replays, subject
from pagewalk.study.scenario import read
from places import REPOSITORY

FILES, TLB_ENTRIES = 70_000, 512


@pytest.mark.parametrize(("name", "base_bytes"), [("power9-64k", 64 << 10), ("power9-4k", 4 << 10)])
def test_misses_follow_from_the_tables_size_and_the_tlbs(name, base_bytes):
    """A random bucket hits if its page is one of the last 512 or so of all pages of the table.

    128 GiB, scale 13 and one step of the adaptive scale (above 64 GiB): 2^23 buckets of 8 bytes.
    """
    scenario = read(name)
    machines = [load(machine) for machine in scenario.machines]
    found = played(scenario, machines, lives_of(scenario, machines))
    base, huge = found.replays
    (dentry,) = [r for r in base.by_region if r.caller == "alloc_large_system_hash"]
    assert dentry.size_bytes == 8 << 23
    pages = dentry.size_bytes // base_bytes
    expected = FILES * (1 - TLB_ENTRIES / pages)
    assert dentry.accesses == FILES
    assert dentry.stlb_misses == pytest.approx(expected, rel=0.01)
    (dentry,) = [r for r in huge.by_region if r.caller == "alloc_large_system_hash"]
    assert dentry.leaf == "PMD"
    assert dentry.stlb_misses == (8 << 23) // (2 << 20), "each leaf once"
    assert huge.counts["stlb_misses"] < 40


def test_the_recorded_diff_misses_each_huge_leaf_once_and_the_page_says_what_comes_out():
    """The packaged part touches the whole 64 MiB table: 32 leaves, which fit a TLB of 512 entries."""
    scenario = read("power9-recorded")
    opened, machines = subject(scenario.trace), [load(scenario.machines[0])]
    base, pmd = replays(opened, machines, scenario.mappings)
    before, after = (
        sum(r.stlb_misses for r in cell.by_region if r.caller == "alloc_large_system_hash")
        for cell in (base, pmd)
    )
    looked_up = sum(r.accesses for r in base.by_region if r.caller == "alloc_large_system_hash")
    assert after == (64 << 20) // (2 << 20)
    assert (64 << 20) // (64 << 10) - TLB_ENTRIES <= before <= looked_up
    page = (REPOSITORY / "docs" / "power9.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith("| packaged part"))
    said = [int(cell.replace(",", "")) for cell in row.split("|")[3:6]]
    assert said == [base.counts["stlb_misses"], before, pmd.counts["stlb_misses"]]
