"""The gate: what must pass it, and what must not."""

import itertools
import json
from functools import partial

import msgspec
import pytest
from click.testing import CliRunner

from pagewalk.cli.studies.check import check
from pagewalk.errors import BadInput
from pagewalk.kernels.general import assoc
from pagewalk.linux.memory.kernel import SetMemory, Vfree, Vmalloc
from pagewalk.study import baseline, replays
from pagewalk.study.lives import live
from places import REPOSITORY

GRID = baseline.Grid(
    workloads={
        "uniform": "synth:uniform?size=16M&accesses=2e4&seed=1",
        "hash probes": "synth:probes?table=16M&accesses=2e4&seed=1",
    },
    machines=["textbook-setassoc", "intel-skylake-sp"],
    mappings=["base", "pmd"],
    lives={"one area": [Vmalloc(name="a", size=(4 << 20) + 64, huge=True)]},
    releases=["6.12", "7.3"],
)


def run(*arguments):
    done = CliRunner().invoke(check, list(map(str, arguments)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A baseline of the grid above, as pagewalk writes it."""
    file = tmp_path_factory.mktemp("baseline") / "baseline.json"
    file.write_bytes(baseline.encode(baseline.Baseline(grid=GRID)))
    code, output = run(file, "--update", "--reason", "the first")
    assert code == 0, output
    return file.read_bytes()


@pytest.fixture
def file(tmp_path, content):
    file = tmp_path / "baseline.json"
    file.write_bytes(content)
    return file


def test_the_same_model_passes(file, content):
    code, output = run(file)
    assert code == 0
    assert "of 10 cells are those of" in output
    assert file.read_bytes() == content


def test_an_optimisation_passes(file, monkeypatch):
    """Other chunks, one thread: another way to the same figures."""
    monkeypatch.setattr(replays, "replay", partial(replays.replay, chunk=777))
    monkeypatch.setattr(replays.os, "sched_getaffinity", lambda _: {0})
    assert run(file)[0] == 0


def test_another_replacement_rule_does_not(file, content, monkeypatch):
    """What is called tree-PLRU, Skylake's L1, behaves as NRU: figures move, and both values are named."""
    names = list(assoc.POLICIES)
    tree, nru = names.index("tree-plru"), names.index("nru")
    names[tree], names[nru] = names[nru], names[tree]
    monkeypatch.setattr(assoc, "POLICIES", tuple(names))
    code, output = run(file)
    assert code == 1
    point = "hash probes, intel-skylake-sp, base"
    old = json.loads(content)["figures"][point]["l1_dtlb_misses"]
    line = next(line for line in output.splitlines() if line.startswith(f"{point}: l1_dtlb_m"))
    assert f" l1_dtlb_misses {old:,} -> " in line
    assert "textbook" not in output
    assert "accesses" not in output
    assert file.read_bytes() == content


@pytest.mark.parametrize("change", [1, -1])
def test_a_figure_that_is_off_by_one_is_named(file, change):
    found = baseline.read(file)
    name = "uniform, intel-skylake-sp, pmd"
    right = found.figures[name]["cycles.exposed"]
    found.figures[name]["cycles.exposed"] += change
    file.write_bytes(baseline.encode(baseline.updated(found, found.figures, found.inputs, "wrong")))
    code, output = run(file)
    assert code == 1
    assert output.splitlines()[0].startswith(
        f"{name}: cycles.exposed {right + change:,} -> {right:,}  ({-100 * change / (right + change):+.4g} %)"
    )
    assert output.splitlines()[1].startswith("1 of ")


def test_figures_that_come_or_go_are_told(file):
    found = baseline.read(file)
    figures = found.figures["uniform, textbook-setassoc, base"]
    figures["no longer"] = figures.pop("walks") + 1
    file.write_bytes(baseline.encode(baseline.updated(found, found.figures, found.inputs, "wrong")))
    code, output = run(file)
    assert code == 1
    old = figures["no longer"]
    assert f"uniform, textbook-setassoc, base: no longer {old:,} -> not there\n" in output
    assert f"uniform, textbook-setassoc, base: walks not there -> {old - 1:,}\n" in output


def test_an_update_keeps_the_reasons_and_says_what_moved(file):
    found = baseline.read(file)
    found.figures["uniform, textbook-setassoc, base"]["walks"] += 5
    file.write_bytes(baseline.encode(baseline.updated(found, found.figures, found.inputs, "a wrong count")))
    code, output = run(file, "--update", "--reason", "walks are counted right")
    assert code == 0
    assert "uniform, textbook-setassoc, base: walks" in output
    assert "1 of them moved" in output
    assert [why.reason for why in baseline.read(file).reasons] == [
        "the first", "a wrong count", "walks are counted right"
    ]  # fmt: skip
    assert run(file)[0] == 0


def test_a_changed_input_is_named(file):
    found = baseline.read(file)
    inputs = {**found.inputs, "trace uniform": "0" * 64}
    file.write_bytes(baseline.encode(msgspec.structs.replace(found, inputs=inputs)))
    code, output = run(file)
    assert code == 0, "the figures are the same"
    assert "trace uniform is not the one" in output


def test_figures_do_not_change_without_a_reason(file):
    edited = json.loads(file.read_bytes())
    edited["figures"]["uniform, textbook-setassoc, base"]["walks"] += 1
    file.write_text(json.dumps(edited))
    with pytest.raises(BadInput, match="last reason"):
        run(file)


@pytest.mark.parametrize("options", [["--update"], ["--reason", "x"], ["--update", "--reason", " "]])
def test_an_update_needs_a_reason_and_a_reason_an_update(file, content, options):
    with pytest.raises(BadInput, match="goes with"):
        run(file, *options)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff\xfe", b"[1]", b'{"schema": "pagewalk.result/1"}', b'{"grid": 3}'],
)
def test_other_files_are_refused(tmp_path, content):
    file = tmp_path / "baseline.json"
    with pytest.raises(BadInput, match="name a baseline"):
        run(file)
    file.write_bytes(content)
    with pytest.raises(BadInput, match="restore"):
        run(file)


def test_an_empty_grid_is_refused(tmp_path):
    file = tmp_path / "baseline.json"
    grid = baseline.Grid(workloads={}, machines=["textbook-setassoc"], mappings=["base"])
    file.write_bytes(baseline.encode(baseline.Baseline(grid=grid)))
    with pytest.raises(BadInput, match="nothing to replay"):
        run(file)


def test_the_projects_own_baseline_is_whole():
    """Its figures are those of its last reason; whether they still hold is `pagewalk check`'s to say."""
    found = baseline.read(REPOSITORY / baseline.DEFAULT)
    grid = found.grid
    replayed = itertools.product(grid.workloads, grid.machines, grid.mappings)
    lived = itertools.product(grid.lives, (f"Linux {version}" for version in grid.releases))
    assert set(found.figures) == {", ".join(names) for names in (*replayed, *lived)}


def test_a_life_costs_what_the_rules_say():
    """4 MiB and 64 bytes: 6 MiB by PMD leaves (seen on 6.18), and 8 bytes for each of its 1536 base pages."""
    found = live([Vmalloc(name="a", size=(4 << 20) + 64, huge=True)], "7.3")
    assert found["memory.areas"] == (6 << 20) + 8 * 1536
    assert found["memory.rounding_waste"] == (2 << 20) - 4096
    assert live([Vmalloc(name="a", size=(4 << 20) + 64)], "7.3")["memory.rounding_waste"] == 0


def test_a_freed_read_only_area_costs_a_split_and_full_flushes():
    """Reference 9: read-only splits 1 GiB, the free splits 2 MiB; each with a flush, and one each besides."""
    events = [
        Vmalloc(name="a", size=2 << 20, huge=True, reset=True),
        SetMemory(name="a", what="ro"),
        Vfree(name="a"),
    ]
    found = live(events, "7.3")
    assert (found["split"], found["flush-all"], found["attribute_calls"]) == (2, 4, 1025)
