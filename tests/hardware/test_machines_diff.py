"""Two machines side by side: what differs is listed, what does not is not."""

import pytest
from click.testing import CliRunner

from pagewalk.cli.catalogue.machines import machines
from pagewalk.errors import BadInput
from pagewalk.hardware.figures import differences
from pagewalk.hardware.load import build, load, names


def test_only_what_differs_is_listed():
    changed = {"extends": "intel-skylake-sp", "clock_ghz": 2.0, "memory": {"latency_cycles": 777}}
    psc = [{"name": "extra", "level": 5, "entries": 3}]
    found = differences(
        load("intel-skylake-sp"), build(changed | {"psc": psc, "geometry": "x86-64-5level"}, "x", "t")
    )
    listed = {(d.table, d.figure): (d.first, d.second) for d in found}
    assert listed["machine", "clock_ghz"] == ("3.0", "2.0")
    assert listed["memory", "latency_cycles"] == ("300", "777")
    assert listed["extra", "entries"] == ("-", "3")
    assert {table for table, _ in listed} == {"machine", "memory", "extra"}


@pytest.mark.parametrize("name", names())
def test_a_machine_does_not_differ_from_itself(name):
    assert differences(load(name), load(name)) == []


def test_the_command():
    done = CliRunner().invoke(machines, ["--diff", "textbook-setassoc", "textbook-fullassoc"])
    assert done.exit_code == 0
    assert "1,536" in done.output
    same = CliRunner().invoke(machines, ["--diff", "textbook-setassoc", "textbook-setassoc"])
    assert "differ in no figure" in same.output
    wrong = CliRunner().invoke(machines, ["--diff", "textbook-setassoc", "nothing"])
    assert isinstance(wrong.exception, BadInput)
