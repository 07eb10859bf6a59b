"""How sure a result is: what measurements of its machines say, and what assumed latencies do."""

import msgspec
import pytest

import fakes
from fakes import measured_case as case
from fakes import measured_row as row
from pagewalk.hardware.load import load
from pagewalk.hardware.machine import Memory
from pagewalk.report import sure
from pagewalk.study.compare import comparisons
from pagewalk.study.latencies import latency_range
from pagewalk.study.replays import replays, result, subject
from pagewalk.study.validation.read import packaged as case_names
from pagewalk.study.validation.read import read
from pagewalk.study.validation.standing import outcomes, packaged, standing
from pagewalk.study.validation.validate import Validation, validate

CHEAP = ("knees-zen3", "knees-neoverse-v2", "power9-git-diff")
"""Packaged cases that are predicted in a second or two."""


MADE_UP = Validation(
    cases=[
        case("one", [row(10.0, 10.5, True), row(10.0, 14.0, False)]),
        case("two", [row(10.0, 9.0, True), row(64, 64, True, "l1_knee"), row(64, 65, True, "l1_knee")]),
        case("set by it", [row(10.0, 99.0, False)], sets=["tlb"]),
        case("another", [row(10.0, 99.0, False)], machine="intel-skylake-sp"),
    ]
)


def test_what_set_a_parameter_does_not_count():
    """By hand: errors of 5, 40 and 10 %; of two knees one is a page off, which is right for its band only."""
    found = standing(outcomes(MADE_UP).cases, "textbook-setassoc")
    assert found == pytest.approx((2, 2, 1, 3, 2, 0.1, 0.4))


def test_another_description_of_that_name_was_not_measured():
    cases = outcomes(MADE_UP).cases
    assert standing(cases, "textbook-setassoc", "0" * 64) is None
    assert standing(cases, "amd-zen3-milan") is None
    assert "No measured case is of of-my-own: how far it is off is unknown." in sure.measured(
        [fakes.result(fakes.replay("base", "of-my-own"))]
    )


def test_a_case_of_a_machine_of_its_own_counts_for_the_preset_that_it_extends():
    preset = load("intel-skylake-sp")
    (found,) = outcomes(Validation(cases=[MADE_UP.cases[0]]), {"one": preset}).cases
    assert (found.machine, found.machine_sha256) == (preset.id, preset.sha256)


def test_the_packaged_outcomes_are_of_the_packaged_cases():
    """Every case that sets nothing is in it, and counts for its preset as it is."""
    found = {one.name: one for one in packaged().cases}
    for name in case_names():
        described = read(name)
        machine = (
            described.machine.get("extends") if isinstance(described.machine, dict) else described.machine
        )
        if not machine or described.sets or described.pattern.__class__.__name__ == "Unpredicted":
            assert name not in found
            continue
        assert found[name].machine == machine
        assert found[name].machine_sha256 == load(machine).sha256, f"{name}: run tools/validation.py"
        values = sum(len(entry.values) or 1 for entry in described.measured)
        assert len(found[name].sizes) + len(found[name].costs) == values


def test_the_packaged_outcomes_are_what_validate_says():
    said = {one.name: one for one in outcomes(validate([read(name) for name in CHEAP])).cases}
    kept = {one.name: one for one in packaged().cases if one.name in said}
    assert kept == said
    assert len(kept) == len(CHEAP)


def test_the_first_screen_has_it_without_being_asked():
    (said,) = sure.measured([skylake()])
    assert "measured TLB sizes are right" in said
    assert "% in the median" in said
    assert "% at worst" in said
    assert "intel-skylake-sp" in sure.in_short(skylake())


def skylake():
    return fakes.result(fakes.replay("base", "intel-skylake-sp"), fakes.replay("pmd", "intel-skylake-sp"))


@pytest.fixture(scope="module")
def replayed():
    opened = subject("synth:uniform?size=64M&accesses=3e4&seed=1")
    machine = load("intel-skylake-sp")
    found = result(opened, [machine], replays(opened, [machine], ["base", "pmd"]))
    return comparisons(found)[0], machine, opened


def test_other_latencies_cost_what_a_replay_with_them_costs(replayed):
    """The range is worked out from counts; its ends are what the engine says of machines at these ends."""
    pair, machine, opened = replayed
    found = latency_range(pair, machine)
    assert found.names == ["L3", "memory", "walker"]
    for end, factor, start in ((0, 0.7, 0.5), (1, 1.3, 1.5)):
        caches = [
            msgspec.structs.replace(cache, latency_cycles=round(factor * cache.latency_cycles))
            if cache.name == "L3"
            else cache
            for cache in machine.cache
        ]
        other = msgspec.structs.replace(
            machine,
            cache=caches,
            memory=Memory(latency_cycles=round(factor * machine.memory.latency_cycles)),
            walker=msgspec.structs.replace(
                machine.walker, start_cycles=round(start * machine.walker.start_cycles)
            ),
        )
        (base,) = replays(opened, [other], ["base"])
        assert base.cycles["walk"] == found.cycles[0][end]
    assert found.changes[0] <= pair.after.cycles["walk"] / pair.before.cycles["walk"] - 1 <= found.changes[1]


def test_no_range_where_it_is_not_known(replayed):
    pair, _, _ = replayed
    assert latency_range(pair, load("intel-ice-lake-sp")) is None, "not the machine of the replay"
    assert sure.assumed_latencies(pair, "0" * 64) == "", "another description"
    assert sure.assumed_latencies(comparisons(fakes.worse())[0]) == "", "no sum of latencies"
    said = sure.assumed_latencies(pair)
    assert "(L3, memory, walker), 30 % less or more (the walker's start 50 %)" in said
