"""What the reference works out from its rules (marked derived there), from the model."""

from statistics import mean

import pytest

from kernels_in_memory import kernel as kernel_in_memory
from pagewalk.linux.memory.kernel import Vmalloc
from pagewalk.linux.rules.eligibility import Kernel, Request, decide
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release

KIB, MIB = 1 << 10, 1 << 20
PMD = 2 * MIB


def waste(size, version="6.12"):
    """Memory beyond whole base pages that a huge area takes."""
    attempt = decide(Request(size, allow_huge=True), Kernel(release(version), hooks("x86-64"))).attempts[0]
    return attempt.area_bytes - -(-size // 4096) * 4096


@pytest.mark.parametrize("pmds", [1, 2, 7])
def test_waste_averages_half_a_pmd(pmds):
    """Section 9: sizes spread evenly over [k, k+1) PMDs."""
    sizes = range(pmds * PMD, (pmds + 1) * PMD, 12_345)
    assert mean(map(waste, sizes)) == pytest.approx(PMD / 2, rel=0.02)


@pytest.mark.parametrize("buckets", [1 << 15, 1 << 17, 1 << 19])
def test_an_array_with_a_header_wastes_almost_a_whole_pmd(buckets):
    """Section 9: 2^m buckets of 64 bytes and a header lie just above a power of two."""
    assert waste(buckets * 64 + 64) == PMD - 4096


def test_up_to_half_extra_for_a_table_of_4_mib_and_a_header():
    """Section 8: 4 MiB + 64 B became 6 MiB."""
    assert waste(4 * MIB + 64) / (4 * MIB) == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize(("mib", "ptes", "leaves"), [(64, 16_384, 32), (512, 131_072, 256)])
def test_entries_that_the_dentry_table_needs(mib, ptes, leaves):
    """Section 5.3."""
    for version, huge, shift, count in (("6.12", True, 21, leaves), ("6.12", False, 12, ptes)):
        linux = kernel_in_memory(version)
        linux.apply(Vmalloc(name="dentry", size=mib * MIB, huge=huge))
        area = linux.areas["dentry"]
        assert (area.shift, area.size_bytes >> shift) == (shift, count)
        if mib == 64:
            assert linux.maps.tables.leaves()[shift] == count + (
                0 if huge else len(linux.areas[area.array].frames)
            )


def test_thousands_of_areas_of_2_5_mib_take_4():
    """The author's own worry about rounding (section 1.2)."""
    assert waste(2 * MIB + 512 * KIB) == MIB + 512 * KIB
