"""The POWER9 scenarios: hash sizes by the formula, and misses that a few lines of arithmetic give too."""

import pytest

from pagewalk.hardware.load import load
from pagewalk.study.play.result import lives_of, played
from pagewalk.study.scenario import read

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
