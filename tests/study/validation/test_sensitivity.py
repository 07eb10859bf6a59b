"""Sensitivity: what is varied, that it is the assumed figures, and that what must move a prediction does."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from pagewalk.errors import BadInput
from pagewalk.hardware.check import check
from pagewalk.hardware.load import load, names
from pagewalk.hardware.machine import Walker, tables
from pagewalk.study.validation.case import Chase
from pagewalk.study.validation.predict import predict
from pagewalk.study.validation.read import machine_of, read
from pagewalk.study.validation.sensitivity import SAMPLES, bands, hypercube, parameters, tried, varied
from pagewalk.study.validation.validate import Predictor

CASE = """
schema = "pagewalk.case/1"
title = "t"
source = "s"
[machine]
extends = "textbook-setassoc"
[machine.walker]
start_cycles = 20
[pattern]
kind = "chase"
[[measured]]
quantity = "cycles"
at.pages = [16, 2048]
values = [100, 227]
"""


def test_a_hypercube_has_one_point_in_each_slice():
    cube = hypercube(5, 8)
    assert cube.shape == (8, 5)
    assert (np.sort(cube, axis=0) == (np.arange(8)[:, None] + 0.5) / 8).all()
    assert len({tuple(np.argsort(column)) for column in cube.T}) == 5


@pytest.mark.parametrize("name", names())
def test_only_assumed_figures_vary_and_every_variant_can_be(name):
    machine = load(name)
    every = list(tables(machine))
    drawn = parameters(machine)
    for parameter in drawn:
        assert parameter.key in every[parameter.table][1].assumed
    for share in (0.0, 0.3, 0.7, 1.0):
        variant = varied(machine, [(p, p.at(share)) for p in drawn])
        check(variant, name)
        assert variant.sha256 != machine.sha256 or not drawn
    for parameter in drawn:
        other = list(tables(varied(machine, [(parameter, parameter.greatest)])))[parameter.table][1]
        assert getattr(other, parameter.key) == parameter.greatest


def test_what_must_move_a_prediction_moves_it(tmp_path):
    """16 pages hit: nothing moves them but memory; 2048 walk, and start cycles count for each."""
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    case = read(str(path))
    hits, walks = bands(case)
    assert (hits.measured, walks.measured) == (100, 227)
    assert hits.predicted == 100
    assert "walker start_cycles" not in [m.name for m in hits.movers]
    start = next(m for m in walks.movers if m.name == "walker start_cycles")
    assert (start.least, start.greatest) == (10, 30)
    assert start.at_least == pytest.approx(walks.predicted - 10)
    assert start.at_greatest == pytest.approx(walks.predicted + 10)
    assert walks.low < walks.predicted < walks.high
    assert tried(case) >= SAMPLES + 1


def test_bands_of_nothing_are_refused():
    with pytest.raises(BadInput, match="no machine is in it"):
        bands(read("basu-2013"))


def test_the_command(tmp_path):
    from pagewalk.cli.studies.validate import validate

    path = tmp_path / "case.toml"
    path.write_text(CASE)
    done = CliRunner().invoke(validate, ["--bands", str(path), "--json", "-"], catch_exceptions=False)
    first = json.loads(done.output)["bands"][0]
    assert first["predicted"] == 100
    assert isinstance(CliRunner().invoke(validate, ["--bands"]).exception, BadInput)


def test_what_is_shared_between_latencies_is_what_a_replay_of_its_own_gives(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    case = read(str(path))
    machine, pattern = machine_of(case), Chase(pages=2048)
    known = {}
    Predictor(machine, "", known).value(pattern, case.measured[0])
    slower = replace(
        machine, memory=replace(machine.memory, latency_cycles=333), walker=Walker(start_cycles=7)
    )
    shared = Predictor(slower, "", known).value(pattern, case.measured[0]).value
    assert len(known) == 1
    assert shared == predict(pattern, slower).figures["cycles"]
    smaller = replace(machine, psc=[])
    Predictor(smaller, "", known).value(pattern, case.measured[0])
    assert len(known) == 2
