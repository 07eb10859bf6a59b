"""Which preset is of the processor that a machine's ``/proc/cpuinfo`` names; x86 only."""

from collections.abc import Mapping

_X86 = (
    ("AuthenticAMD", 23, (*range(0x30), *range(0x50, 0x60)), "amd-zen1"),
    (
        "AuthenticAMD",
        23,
        (*range(0x30, 0x50), *range(0x60, 0x80), 0x90, 0x91, *range(0xA0, 0xB0)),
        "amd-zen2-rome",
    ),
    ("AuthenticAMD", 25, (*range(0x10), *range(0x20, 0x60)), "amd-zen3-milan"),
    ("AuthenticAMD", 25, (*range(0x10, 0x20), *range(0x60, 0xB0)), "amd-zen4-genoa"),
    ("AuthenticAMD", 26, (*range(0x30), *range(0x40, 0x50), *range(0x60, 0x80)), "amd-zen5-turin"),
    ("GenuineIntel", 6, (0x3F,), "intel-haswell-ep"),
    ("GenuineIntel", 6, (0x4E, 0x5E, 0x8E, 0x9E), "intel-skylake-client"),
    ("GenuineIntel", 6, (0x55,), "intel-skylake-sp"),
    ("GenuineIntel", 6, (0x6A, 0x6C), "intel-ice-lake-sp"),
    ("GenuineIntel", 6, (0x7A,), "intel-goldmont-plus"),
    ("GenuineIntel", 6, (0x8F, 0xCF), "intel-sapphire-rapids"),
    ("GenuineIntel", 6, (0xAD, 0xAE), "intel-granite-rapids"),
)
"""Vendor, family, models, preset. 25/1 and 6/207 are those of the reference's own measurements; the rest are
Linux arch/x86/include/asm/intel-family.h and arch/x86/kernel/cpu/amd.c (bsp_init_amd), from memory."""


def preset_of(cpu: Mapping[str, str]) -> str:
    """Give the name of the preset that is of a processor.

    Parameters
    ----------
    cpu : mapping
        Fields of ``/proc/cpuinfo``: "vendor_id", "cpu family", "model".

    Returns
    -------
    str
        "" where no preset is of it.
    """
    for vendor, family, models, preset in _X86:
        same_family = cpu.get("vendor_id") == vendor and cpu.get("cpu family") == str(family)
        if same_family and cpu.get("model", "") in map(str, models):
            return preset
    return ""
