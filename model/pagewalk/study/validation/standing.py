"""How near each processor's description came to what was measured on it: outcomes of all cases, in short.

The package carries those of its own cases (``outcomes.json``, written by ``tools/validation.py``), so that a
report can say how sure its figures are without predicting every case anew.
"""

from collections.abc import Iterable, Mapping
from importlib import resources
from statistics import median
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from pagewalk.hardware.machine import Machine
from pagewalk.study.validation.case import KNEES, REACHES
from pagewalk.study.validation.validate import Validation


class Short(Struct, frozen=True, kw_only=True):
    """A case that validates its machine.

    Attributes
    ----------
    name : str
    machine, machine_sha256 : str
        The preset that it counts for: the case's own machine, or the one that this extends.
    sizes : list of float
        Errors of predicted knees: whether sizes of TLBs are right.
    costs : list of float
        Errors of all other values (cycles, walks, misses), to four digits.
    costs_inside : int
        Of those, how many lie in their bands.
    """

    name: str
    machine: str
    machine_sha256: str
    sizes: list[float]
    costs: list[float]
    costs_inside: int


class Outcomes(Struct, frozen=True, kw_only=True):
    """What remains of a `Validation` for reports."""

    schema: Literal["pagewalk.outcomes/1"] = "pagewalk.outcomes/1"
    pagewalk: str
    cases: list[Short]


class Standing(NamedTuple):
    """A machine's predictions beside measurements."""

    cases: int
    sizes: int
    sizes_right: int
    """Knees predicted without any error."""
    costs: int
    costs_inside: int
    typical_error: float
    """Median of the sizes of the errors of costs; 0 where there are none."""
    worst_error: float


def outcomes(found: Validation, presets: Mapping[str, Machine] = MappingProxyType({})) -> Outcomes:
    """Keep of a validation what `standing` needs: cases that set nothing, of machines.

    Parameters
    ----------
    found : Validation
    presets : mapping of str to Machine
        Case -> the preset that its machine extends, for cases that describe a machine of their own.
    """
    kept = []
    for case in found.cases:
        if not case.validates or not case.machine:
            continue
        preset = presets.get(case.name)
        knees = [row for row in case.rows if row.quantity in KNEES + REACHES]
        others = [row for row in case.rows if row.quantity not in KNEES + REACHES]
        kept.append(
            Short(
                name=case.name,
                machine=preset.id if preset else case.machine,
                machine_sha256=preset.sha256 if preset else case.machine_sha256,
                sizes=[_short(row.error) for row in knees],
                costs=[_short(row.error) for row in others],
                costs_inside=sum(row.inside for row in others),
            )
        )
    return Outcomes(pagewalk=found.pagewalk, cases=kept)


def _short(error: float) -> float:
    return float(f"{error:.4g}")


def packaged() -> Outcomes:
    """The outcomes of the packaged cases, as of the release."""
    file = resources.files("pagewalk.study.validation").joinpath("outcomes.json")
    return msgspec.json.decode(file.read_bytes(), type=Outcomes)


def standing(cases: Iterable[Short], machine: str, sha256: str = "") -> Standing | None:
    """How a machine stands in some cases; None where none is of it.

    Parameters
    ----------
    cases : iterable of Short
    machine : str
    sha256 : str
        Of the description that matters; cases of any other description of that name do not count. "" takes
        all.
    """
    of_it = [
        case for case in cases if case.machine == machine and (not sha256 or case.machine_sha256 == sha256)
    ]
    if not of_it:
        return None
    sizes = [error for case in of_it for error in case.sizes]
    costs = [abs(error) for case in of_it for error in case.costs]
    return Standing(
        len(of_it),
        len(sizes),
        sum(error == 0 for error in sizes),
        len(costs),
        sum(case.costs_inside for case in of_it),
        median(costs) if costs else 0.0,
        max(costs, default=0.0),
    )


def encode(found: Outcomes) -> bytes:
    """As JSON, a line for each case, so that a change of one can be read in a diff."""
    head = msgspec.json.encode({"schema": found.schema, "pagewalk": found.pagewalk})[:-1]
    cases = b",\n".join(msgspec.json.encode(case) for case in found.cases)
    return head + b',"cases":[\n' + cases + b"\n]}\n"
