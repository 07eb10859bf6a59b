"""What a first-level TLB has entries for: said where larger leaves make it miss more."""

from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.hardware.machine import SIZES, Machine
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.user import LARGE
from pagewalk.study.compare import Comparison


def first_level(pair: Comparison, sha256: str = "") -> str:
    """Why L1 DTLB misses may have risen: its entries for large leaves are fewer than those for base pages.

    Parameters
    ----------
    pair : Comparison
    sha256 : str
        Of the machine as it was then; "" where it was not noted.

    Returns
    -------
    str
        "32 entries for 2M leaves, 64 for 4K"; "" where they have not risen, the entries are not fewer, or the
        machine is not at hand as it was.
    """
    misses = [replay.counts.get("l1_dtlb_misses", 0) for replay in (pair.before, pair.after)]
    before, after = pair.rates((misses[0], misses[1]))
    if after <= before or pair.after.mapping not in LARGE:
        return ""
    try:
        machine = load(pair.after.machine)
    except BadInput:
        return ""
    if sha256 and machine.sha256 != sha256:
        return ""
    geometry = GEOMETRIES[machine.geometry]
    large, base = geometry.leaf(LARGE[pair.after.mapping]).shift, geometry.base_shift
    few, many = _entries(machine, large), _entries(machine, base)
    return f"{few:,} entries for {_name(large)} leaves, {many:,} for {_name(base)}" if few < many else ""


def _entries(machine: Machine, shift: int) -> int:
    """Of the first level, for loads of units of 2^shift bytes."""
    return sum(
        tlb.entries
        for tlb in machine.tlb
        if tlb.level == 1 and "load" in tlb.serves and (not tlb.holds or shift in map(SIZES.get, tlb.holds))
    )


def _name(shift: int) -> str:
    return next(name for name, its in SIZES.items() if its == shift)
