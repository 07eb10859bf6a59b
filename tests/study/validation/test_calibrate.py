"""Calibration: the fit finds geometries that made the times; figures and files follow from given times.

Nothing here asserts a time: points are made up from known machines, except in one run of real loops whose
results are only required to be sane.
"""

import tomllib

import numpy as np
import pytest
from msgspec.structs import replace

from pagewalk.hardware.load import build, load
from pagewalk.study.calibration.calibrate import worked_out
from pagewalk.study.calibration.derive import Draft, frames
from pagewalk.study.calibration.fit import FIRST, SECOND, candidates, fit
from pagewalk.study.calibration.geometry import Geometry, miss_shares, misses_of_a_set
from pagewalk.study.calibration.timed.counters import Event, counted
from pagewalk.study.calibration.timed.here import Here, here
from pagewalk.study.calibration.timed.plan import PLAN, Measured
from pagewalk.study.calibration.timed.timing import Point, memory, stolen, ticks, time_chase
from pagewalk.study.calibration.write import case_file, curves, machine_file, toml
from pagewalk.study.validation.case import Chase
from pagewalk.study.validation.predict import predict
from pagewalk.study.validation.read import build_case
from reference_sets import Row

SHAPES = [(p.pages, p.stride >> 12) for p in PLAN["tlb"]]
TREE = Geometry(256, 12, "split", "tree-plru")


@pytest.fixture(scope="module")
def known():
    """All candidates of a guest whose second level is documented to have 3,072 entries."""
    return candidates(SHAPES, 3072)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Geometry(1, 64), Geometry(256, 8)),
        (Geometry(16, 4), Geometry(128, 12, "xor")),
        (Geometry(1, 72), Geometry(128, 24)),
        (Geometry(16, 6), Geometry(128, 16, "xor")),
        (Geometry(1, 48), Geometry(256, 8, "modulo", "random")),
        (Geometry(1, 64), Geometry(256, 8, "split")),
        (Geometry(1, 72), TREE),
        (Geometry(1, 72), TREE._replace(shared=True)),
    ],
)
def test_the_fit_finds_what_made_the_times(known, first, second):
    """5 cycles of data, 7 of an L1 miss and 40 of a walk, up to 1 % of noise."""
    assert first in FIRST
    assert second._replace(shared=False) in SECOND
    m1, m2 = miss_shares([first], SHAPES)[0], miss_shares([second], SHAPES)[0]
    extra = 7 * m1 + 40 * m1 * m2
    total = (5 + extra) * (1 + 0.01 * np.random.default_rng(1).random(len(SHAPES)))
    found = fit(known, total - 5, total)
    assert (found.first, found.second.entries) == (first, second.entries)
    assert found.second[2:] == second[2:]
    assert found.hit_cycles == pytest.approx(7, rel=0.05)
    assert found.walk_cycles == pytest.approx(40, rel=0.05)
    assert found.error < 0.02


@pytest.mark.parametrize(
    "geometry", [Geometry(1, 16), Geometry(4, 3), Geometry(8, 2, "xor"), Geometry(8, 3, "split")]
)
@pytest.mark.parametrize("shape", [(16, 1), (17, 1), (12, 2), (40, 1), (9, 8), (30, 4), (24, 129)])
def test_miss_shares_are_those_of_a_simulated_lru(geometry, shape):
    pages, stride = shape
    sets = [[] for _ in range(geometry.sets)]
    missed = 0
    for lap in range(4):
        for page in range(0, pages * stride, stride):
            number = {
                "modulo": page % geometry.sets,
                "xor": (page ^ page // geometry.sets) % geometry.sets,
                "split": page % max(geometry.sets // 2, 1) + geometry.sets // 2 * (page // 512 % 2),
            }[geometry.set_index]
            held = sets[number]
            if page in held:
                held.remove(page)
            elif lap == 3:
                missed += 1
            held.insert(0, page)
            del held[geometry.ways :]
    assert miss_shares([geometry], [shape])[0, 0] == pytest.approx(missed / pages)


@pytest.mark.parametrize(("pages", "share"), [(18, 0.21), (20, 0.38), (24, 0.59), (32, 0.80)])
def test_random_replacement_follows_the_closed_form(pages, share):
    """The reference's section 6.1, rule 3, W = 16: simulated; the form is less near the knee."""
    found = miss_shares([Geometry(2, 16, "modulo", "random")], [(2 * pages, 1)])[0, 0]
    assert share - 0.1 < found < share + 0.01
    assert 1 - found == pytest.approx((1 - 1 / 16) ** ((pages - 1) * found), abs=1e-5)


@pytest.mark.parametrize("ways", [3, 6, 12])
def test_a_tree_misses_as_its_plain_twin(ways):
    """Random orders through a set full of others; none miss that fit, all beyond the next power of two."""
    draw = np.random.default_rng(3)
    for pages in range(ways + 1, 1 << (ways - 1).bit_length()):
        missed = 0
        for _ in range(12):
            row = Row("tree-plru", ways, 0)
            for way in draw.permutation(ways):
                row.keys[way] = "other"
                row.touch(int(way), filled=True)
            order = draw.permutation(pages).tolist()
            for _ in range(100):
                missed = sum(not (row.hit(page) or row.put(page) is None) for page in order) + missed
        assert misses_of_a_set(pages, ways, "tree-plru") == pytest.approx(missed / 1200, rel=0.15)
    assert misses_of_a_set(ways, ways, "tree-plru") == 0
    assert misses_of_a_set(2 * ways, ways, "tree-plru") == 2 * ways


@pytest.mark.parametrize(("pages", "stride"), [(2304, 1), (2944, 1), (1664, 2), (208, 16)])
def test_what_walks_share_misses_as_in_the_engine(pages, stride):
    """The candidate plays PDEs of scattered frames by itself; the engine knows frames and tables."""
    second = {"name": "L2 DTLB", "ways": 12, "index": TREE.expression, "policy": "tree-plru"}
    guest = {"host_leaf": "4K", "walks_in_stlb": True}
    machine = build({"extends": "amd-zen4-genoa", "tlb": [second], "guest": guest}, "shared", "test")
    said = predict(Chase(pages=pages, stride=stride << 12, frames="scattered"), machine).figures
    assert miss_shares([TREE._replace(shared=True)], [(pages, stride)])[0, 0] == pytest.approx(
        said["stlb_misses"], abs=0.1
    )


ZEN = {
    "extends": "amd-zen4-genoa",
    "clock_ghz": 3.7,
    "tlb": [{"name": "L2 DTLB", "entries": 2048, "ways": 8, "hit_cycles": 9}],
    "walker": {"start_cycles": 30, "count": 3},
    "memory": {"latency_cycles": 350},
    "cache": [
        {"name": "L3", "latency_cycles": 60, "size_bytes": 4 << 20},
        {"name": "L2", "latency_cycles": 13, "size_bytes": 1 << 19},
    ],
}


AROUND_L3 = [Chase(pages=n << 12, stride=64, leaf="2M") for n in (5, 9, 14)]
"""1.25 to 3.5 MiB."""


@pytest.fixture(scope="module")
def calibration():
    """A calibration of a made-up machine: its times are what the model says of it."""
    machine = build(ZEN, "made up", "test")
    listed = {1: (32768, 8, 64, 1), 2: (1 << 19, 8, 64, 1), 3: (4 << 20, 16, 64, 8)}
    points = {}
    for name, patterns in PLAN.items():
        some = [p for p in patterns if p.pages <= 50_000 and (name != "tlb" or p.pages % 24 == 0)]
        points[name] = [Point(p, [predict(p, machine).figures["cycles"]] * 3) for p in some]
    points["L3 share"] = [Point(p, [predict(p, machine).figures["cycles"]] * 3) for p in AROUND_L3]
    big = Chase(pages=1 << 17, stride=256, leaf="2M")
    points["memory"] = [Point(big, [predict(big, machine).figures["cycles"]] * 3)]
    return worked_out(
        Here("made up", False, "amd-zen4-genoa", True, listed), Measured(points, [3.7, 3.7], 1.0)
    )


def test_a_machine_is_found_again_from_its_times(calibration):
    values = {name: value.value for name, value in calibration.values.items()}
    assert values["clock_ghz"] == 3.7
    assert values["L1D latency_cycles"] == 4
    assert values["L2 latency_cycles"] == 13
    assert values["L1 DTLB entries"] == 72
    assert values["L2 TLB entries"] == 2048
    assert values["L2 TLB hit_cycles"] == pytest.approx(9, rel=0.05)
    assert values["walker start_cycles"] == pytest.approx(30, abs=3)
    assert values["L3 latency_cycles"] == pytest.approx(60, rel=0.05)
    assert values["memory latency_cycles"] == pytest.approx(350, rel=0.05)
    assert values["walker count"] == pytest.approx(3, rel=0.1)
    assert max(map(abs, calibration.errors)) < 0.1


def test_neighbours_leave_a_part_of_the_last_cache(calibration):
    """Half of the listed 4 MiB, lost at random: found within a sixth, and taken into the file."""
    assert calibration.values["L3 size_bytes"].value == 4 << 20
    half = [cache | {"size_bytes": 2 << 20, "policy": "random"} for cache in ZEN["cache"][:1]]
    left = build(ZEN | {"cache": half + ZEN["cache"][1:]}, "left", "test")
    times = [Point(p, [predict(p, left).figures["cycles"]] * 3) for p in AROUND_L3]
    found = worked_out(calibration.here, Measured(calibration.points | {"L3 share": times}, [3.7], 1.0))
    assert found.values["L3 size_bytes"].value == pytest.approx(2 << 20, rel=1 / 6)
    assert next(c for c in found.machine.cache if c.name == "L3").policy == "random"


@pytest.mark.parametrize("lie", ["packed", "pairs", "scattered"])
def test_how_memory_lies_is_seen_where_a_guest_walks(lie):
    """Up to 5 % of noise; in a guest on small pages the two differ by a third and more."""
    draft = Draft(Here("", True, "amd-zen3-milan-guest", True, {}))
    draw, points = np.random.default_rng(2), {}
    for name in ("frames", "walking"):
        made = [predict(replace(p, frames=lie), draft.machine()).figures["cycles"] for p in PLAN[name]]
        points[name] = [
            Point(p, [c * (1 + 0.05 * draw.random())]) for p, c in zip(PLAN[name], made, strict=True)
        ]
    assert frames(draft, points, shared=False) == lie


def test_what_was_disturbed_is_timed_again():
    """Sure: two more passes within a tenth of the best."""
    assert Point(Chase(), [10.0, 10.9, 30.0, 10.5]).sure
    assert not Point(Chase(), [10.0, 10.9, 30.0, 12.0]).sure


def test_a_pass_far_below_many_that_agree_does_not_count():
    agreeing = [5.0, 5.1, 5.0, 5.2, 5.05]
    assert Point(Chase(), [1.8, *agreeing]).cycles == 5.0
    assert Point(Chase(), [*agreeing, 5.0, 30.0]).cycles == 5.0
    assert Point(Chase(), [148.0, 185.0, 299.0, 441.0, 480.0, 512.0]).cycles == 148.0
    assert Point(Chase(), [3.0]).cycles == 3.0


def test_stolen_time(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 10 0 5 80 0 0 0 5 0 0\n")
    assert ticks(1, stat) == [10, 0, 5, 80, 0, 0, 0, 5]
    assert ticks(0, stat) == ticks(1, tmp_path / "none") == []
    assert stolen([10, 0, 5, 80, 0, 0, 0, 5], [60, 0, 5, 100, 0, 0, 0, 35]) == pytest.approx(0.3)
    assert stolen([], []) == 0


def test_the_files_are_read_back(calibration, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(machine_file(calibration))
    machine = load(str(path))
    assert machine.clock_ghz == 3.7
    assert next(t for t in machine.tlb if t.name == "L2 DTLB").entries == 2048
    assert machine.guest is None
    assert all(t.confidence == "measured" for t in (machine.walker, machine.memory))
    assert "pagewalk calibrate" in machine.memory.source
    case = build_case(tomllib.loads(case_file(calibration, "mine.toml")), tmp_path / "mine.case.toml")
    assert len(case.measured) == len(calibration.held_out)
    assert b'"pagewalk.calibration/1"' in curves(calibration)


def test_the_figure_shows_what_was_measured(calibration):
    from pagewalk.report.studies.calibration import disturbed, figure, verdict
    from pagewalk.report.style import drawing

    with drawing():
        axes = figure(calibration).axes
    strides = sorted({p.pattern.stride for p in calibration.points["tlb"]})
    assert [a.get_title() for a in axes[: len(strides)]] == [f"stride {s >> 10}K" for s in strides]
    first = [p.cycles for p in calibration.points["tlb"] if p.pattern.stride == strides[0]]
    assert axes[0].lines[1].get_ydata().tolist() == first
    assert "within" in verdict(calibration)
    assert "0 were disturbed" in disturbed(calibration)


COUNTED = {"counted cycles of a multiplication": 3.01}


def test_a_counter_counts_while_something_runs():
    """The software event that every kernel has, nanoseconds of this process; and a kind that none has."""
    task_clock = Event(1, 1)
    spent = counted(task_clock, lambda: sum(range(200_000)))
    if spent is None:
        pytest.skip("the kernel allows no counters at all")
    assert 0 < spent < 60e9
    assert counted(Event(0xFFFF, 0), lambda: None) is None


def test_what_cannot_be_measured_is_said_and_left_alone(calibration):
    found = worked_out(calibration.here, Measured(calibration.points, [3.7], 0.2, 0.0, COUNTED))
    assert "mapped only 20%" in found.missing["2M pages"]
    assert found.values["counted cycles of a multiplication"].value == 3.01
    assert "hardware counters" not in found.missing
    assert "shows none" in calibration.missing["hardware counters"]
    assert "unknown" in tomllib.loads(machine_file(found))
    two = Here("two arrays", True, "intel-sapphire-rapids", False, {})
    found = worked_out(two, Measured(calibration.points, [3.7], 1.0))
    assert "2 arrays share 4K pages" in found.missing["L2 TLB of the preset"]
    assert found.missing["L1D size"] == "the kernel does not list it"
    before = [t for t in load("intel-sapphire-rapids").tlb if t.level == 2]
    assert [t for t in found.machine.tlb if t.level == 2] == before
    assert found.machine.guest.host_leaf in ("4K", "2M")


def test_the_machine_that_the_kernel_shows(tmp_path):
    assert here(tmp_path).caches == {}
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\n"
        "model name\t: Xeon\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\nmodel\t: 1\n"
    )
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cache/index2"
    folder.mkdir(parents=True)
    said = {"type": "Unified", "level": "2", "size": "2048K", "ways_of_associativity": "16"}
    for key, value in (said | {"coherency_line_size": "64", "shared_cpu_list": "0-1,8"}).items():
        (folder / key).write_text(value + "\n")
    found = here(tmp_path)
    assert (found.preset, found.exact, found.guest) == ("intel-sapphire-rapids", True, True)
    assert found.caches == {2: (2 << 20, 16, 64, 3)}


def test_real_loops_on_this_machine():
    """A chase far beyond every TLB takes longer than one within a page, at least once on a busy machine."""
    near, far = Chase(pages=16, stride=64), Chase(pages=4096, stride=1 << 16)
    with memory("4K", 1 << 28) as target:
        tries = [(time_chase(target, near), time_chase(target, far)) for _ in range(3)]
        while not any(0 < short < long for short, long in tries) and len(tries) < 50:
            tries.append((time_chase(target, near), time_chase(target, far)))
        assert any(0 < short < long for short, long in tries)
        assert any(time_chase(target, Chase(pages=16, stride=64, chains=4)) > 0 for _ in range(50))


def test_toml_is_read_back():
    content = {"a": 1, "b": 'x"\\\n', "c": {"d e": [1, 2], "f": {"g": True}}, "h": [{"i": 0.5}, {"i": 1}]}
    assert tomllib.loads(toml(content)) == content
