"""Which preset is of a processor."""

import pytest

from pagewalk.hardware import detect
from pagewalk.hardware.detect import preset_of
from pagewalk.hardware.load import load, names


def cpu(vendor, family, model):
    return {"vendor_id": vendor, "cpu family": str(family), "model": str(model)}


@pytest.mark.parametrize(
    ("said", "preset"),
    [
        (cpu("AuthenticAMD", 25, 1), "amd-zen3-milan"),  # cpu-tlb.md, MEAS-Z3: EPYC 7003
        (cpu("GenuineIntel", 6, 207), "intel-sapphire-rapids"),  # cpu-tlb.md, MEAS-EMR: Emerald Rapids
        (cpu("AuthenticAMD", 25, 0x21), "amd-zen3-milan"),  # Ryzen 5000
        (cpu("GenuineIntel", 6, 106), "intel-ice-lake-sp"),
        (cpu("GenuineIntel", 15, 85), ""),
        (cpu("AuthenticAMD", 6, 85), ""),
        ({}, ""),
        ({"CPU implementer": "0x41", "CPU part": "0xd0c"}, ""),
    ],
)
def test_a_processor_has_its_preset_or_none(said, preset):
    assert preset_of(said) == preset


def test_no_model_is_of_two_processors_and_each_has_a_preset():
    models = [(vendor, family, one) for vendor, family, listed, _ in detect._X86 for one in listed]
    assert len(set(models)) == len(models)
    for *_, preset in detect._X86:
        assert preset in names()
        assert load(preset).geometry == "x86-64"
