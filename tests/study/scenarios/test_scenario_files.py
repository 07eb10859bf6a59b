"""Scenario files: what comes with pagewalk, what repeats, and what is refused, with file, place and mend."""

import re
import subprocess
import sys

import msgspec
import pytest

from pagewalk.errors import BadInput
from pagewalk.linux.memory.kernel import Vmalloc
from pagewalk.study.play.play import play
from pagewalk.study.play.result import lives_of
from pagewalk.study.play.steps import Access, Repeat, expanded
from pagewalk.study.scenario import packaged, read
from places import REPOSITORY

HEAD = """schema = "pagewalk.scenario/1"
title = "t"
machines = ["textbook-setassoc"]
"""
KERNEL = """[[kernel]]
name = "k"
release = "6.12"
nodes = ["64M"]
"""
EVENTS = """[[event]]
event = "vmalloc"
name = "a"
size = "4M"
[[event]]
event = "access"
rounds = 10
touch = [{ what = "a" }]
"""


def written(tmp_path, text):
    path = tmp_path / "case.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", list(packaged()))
def test_every_packaged_scenario_reads(name):
    scenario = read(name)
    assert scenario.name == name
    assert scenario.title
    if scenario.kernel:
        accesses = [event for _, event in expanded(scenario.event) if isinstance(event, Access)]
        assert accesses


def test_run_lists_them_all():
    command = [sys.executable, "-m", "pagewalk", "run", "--list"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in said.splitlines() if not line.startswith(" ")] == list(packaged())
    assert all(" ".join(read(name).title.split()) in " ".join(said.split()) for name in packaged())


def test_what_the_issue_asks_for_is_there():
    assert {
        *("boot-hash-tables", "modules", "bpf", "kvmalloc-above-power-of-two", "fragmented"),
        *("nohugevmalloc", "architectures", "exchange", "recorded-boot"),
        *("power9-4k", "power9-64k", "power9-recorded"),
    } <= set(packaged())


def test_the_machines_of_all_architectures():
    from pagewalk.hardware.load import load

    geometries = {load(machine).geometry for machine in read("architectures").machines}
    assert geometries == {
        *("x86-64", "arm64-4k", "arm64-16k", "arm64-64k"),
        *("powerpc64-radix-4k", "powerpc64-radix-64k", "riscv-sv48"),
    }


def test_sizes_are_numbers_everywhere_but_in_names(tmp_path):
    text = HEAD + KERNEL + EVENTS.replace('name = "a"', 'name = "4K"').replace('what = "a"', 'what = "4K"')
    scenario = read(written(tmp_path, text))
    assert scenario.kernel[0].nodes == [64 << 20]
    assert scenario.event[0] == Vmalloc(name="4K", size=4 << 20)


def test_repeats_number_names_and_know_their_place(tmp_path):
    text = HEAD + KERNEL + EVENTS
    text += """[[event]]
event = "repeat"
times = 2
events = [
    { event = "vfree", name = "a{n}" },
    { event = "access", rounds = 1, touch = [{ what = "b{n}" }] },
]
"""
    steps = list(expanded(read(written(tmp_path, text)).event))
    assert [place for place, _ in steps[2:]] == ["event[2].events[0]", "event[2].events[1]"] * 2
    assert [getattr(event, "name", None) or event.touch[0].what for _, event in steps[2:]] == [
        *("a0", "b0", "a1", "b1"),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("rounds = 10", "rounds = 0"), "$.event[1].rounds"),
        (('size = "4M"', 'size = "much"'), '$.event[0].size`; write a number, or a size like "64K"'),
        (('event = "vmalloc"', 'event = "malloc"'), "malloc"),
        (('name = "a"', 'name = "a"\nhuuge = true'), "huuge"),
        (('nodes = ["64M"]', "nodes = []"), "$.kernel[0].nodes"),
        (('release = "6.12"', 'release = "6.12"\nreset = "never"'), "$.kernel[0].reset"),
        ((KERNEL, ""), "either trace or [[kernel]]"),
        ((KERNEL, KERNEL + KERNEL), "stands twice"),
        (("nodes", 'parameters = ["nohugevmaloc"]\nnodes'), "kernel k: no boot parameter 'nohugevmaloc'"),
        ((EVENTS, ""), "belong together"),
        (('title = "t"', 'title = "t"\ntrace = "sample:gitdiff"'), "either trace or [[kernel]]"),
        (('machines = ["textbook-setassoc"]', "machines = []"), "machines or mappings is empty"),
        (
            ('machines = ["textbook-setassoc"]', 'machines = ["nosuch"]'),
            "machines: nosuch: no preset of that name",
        ),
        (("[[kernel]]", "[[kernel"), "not TOML"),
    ],
)
def test_a_bad_file_is_refused_when_it_is_read(tmp_path, change, said):
    text = HEAD + KERNEL + EVENTS
    assert change[0] in text
    with pytest.raises(BadInput) as refused:
        read(written(tmp_path, text.replace(*change)))
    assert "case.toml" in refused.value.where
    assert said in str(refused.value)
    assert refused.value.mend


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('what = "a"', 'what = "b"'), "event[1], kernel k: what = 'b'"),
        (('touch = [{ what = "a" }]', 'touch = [{ what = "a", pattern = "zipf", size = 8 }]'), "too few"),
        (('size = "4M"', 'size = "4M"\n[[event]]\nevent = "vfree"\nname = "x"'), "event[1], kernel k"),
        (('size = "4M"', 'size = "4G"'), "event[1], kernel k: what = 'a': nothing has that name"),
        (('release = "6.12"', 'release = "six"'), "kernel k: "),
        (('release = "6.12"', 'release = "6.12"\narch = "sparc"'), "sparc"),
        (('release = "6.12"', 'release = "6.12"\narch = "riscv-sv39"'), "name another machine"),
        (('release = "6.12"', 'release = "6.12"\naged = { unusable = 1.0, free = 0.99 }'), "kernel k: age"),
    ],
)
def test_an_event_that_cannot_be_names_its_place(tmp_path, change, said):
    from pagewalk.hardware.load import load

    text = HEAD + KERNEL + EVENTS
    assert change[0] in text
    with pytest.raises(BadInput) as refused:
        lives_of(read(written(tmp_path, text.replace(*change))), [load("textbook-setassoc")])
    assert said in str(refused.value)
    assert refused.value.mend


def test_a_scenario_that_accesses_nothing(tmp_path):
    text = HEAD + KERNEL + EVENTS[: EVENTS.index('[[event]]\nevent = "access"')]
    scenario = read(written(tmp_path, text))
    with pytest.raises(BadInput, match="no event accesses anything"):
        play("t", scenario.kernel[0], "x86-64", scenario.event, scenario.file)


def test_a_boot_parameter_that_is_no_number(tmp_path):
    text = HEAD + KERNEL.replace("nodes", 'parameters = ["dhash_entries=many"]\nnodes') + EVENTS
    scenario = read(written(tmp_path, text.replace(EVENTS, '[[event]]\nevent = "boot"\n' + EVENTS)))
    with pytest.raises(BadInput, match="dhash_entries=many"):
        play("t", scenario.kernel[0], "x86-64", scenario.event, scenario.file)


def test_bad_input_on_the_command_line_is_one_line_and_writes_nothing(tmp_path):
    path = written(tmp_path, HEAD + KERNEL + EVENTS.replace('what = "a"', 'what = "b"'))
    command = [sys.executable, "-m", "pagewalk", "run", path, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "case.toml: event[1], kernel k: what = 'b'" in line
    assert not (tmp_path / "out").exists()


def test_the_file_in_the_docs_plays(tmp_path):
    page = (REPOSITORY / "docs" / "scenarios.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    scenario = read(written(tmp_path, example))
    assert len(scenario.kernel) == 1
    steps = [msgspec.structs.replace(s, times=3) if isinstance(s, Repeat) else s for s in scenario.event]
    one = play("t", scenario.kernel[0], "x86-64", steps, scenario.file)
    assert one.trace.accesses == 3 * 1000 * 3, "in each of three repeats 1000 rounds of three touches"
