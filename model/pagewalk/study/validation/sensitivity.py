"""How far the figures that nobody published move a prediction: each alone, and all together.

Every figure of the machine that its description calls assumed is varied between limits of ours; figures with
a source stay. One at a time says which matter; a Latin hypercube over all says how wide the band of the
prediction is.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine, Tlb, tables
from pagewalk.study.validation.case import BootTables, Case, Unpredicted
from pagewalk.study.validation.read import changed, machine_of, points
from pagewalk.study.validation.validate import Known, Predictor

TIMES = {
    "entries": (0.5, 2.0),
    "nested_entries": (0.25, 4.0),
    "count": (0.5, 2.0),
    "size_bytes": (0.5, 2.0),
    "latency_cycles": (0.7, 1.3),
    "hit_cycles": (0.7, 1.3),
    "start_cycles": (0.5, 1.5),
}
"""Figure -> factors for its least and greatest value. Ours: sizes are powers of two, so that the next ones
are half and double; latencies of servers of one time differ by about as much."""

POLICIES = ("lru", "random")
"""An assumed replacement is exchanged for the other end of what is built."""

SAMPLES = 16
"""Of the Latin hypercube; ours: the width of a band, not its shape, is asked for."""

THREADS = 4
"""At most; ours: each holds the state of a replay, some 100 MiB of a large table."""


class Parameter(NamedTuple):
    """An assumed figure and its limits.

    Attributes
    ----------
    table : int
        Place of its table in `pagewalk.hardware.machine.tables`.
    name : str
        For people: "PDE cache entries".
    key : str
    least, greatest : int or str
    """

    table: int
    name: str
    key: str
    least: Any
    greatest: Any

    def at(self, share: float) -> Any:
        """The value at a place between its limits, 0 to 1; of sizes the nearest factor of two."""
        if isinstance(self.least, str):
            return self.least if share < 0.5 else self.greatest
        if self.key in ("latency_cycles", "hit_cycles", "start_cycles"):
            return round(self.least + share * (self.greatest - self.least))
        doublings = round(share * np.log2(self.greatest / self.least))
        return self.least << int(doublings)


class Mover(Struct, frozen=True, kw_only=True):
    """What one figure does alone: the prediction with its least and its greatest value."""

    name: str
    least: int | str
    greatest: int | str
    at_least: float
    at_greatest: float


class Band(Struct, frozen=True, kw_only=True):
    """A prediction with what moves it.

    Attributes
    ----------
    case, quantity : str
    at, over, less : dict
    measured, predicted : float
    low, high : float
        Of `SAMPLES` machines drawn from all assumed figures together.
    movers : list of Mover
        Those that move it by a thousandth at least, most first.
    """

    case: str
    quantity: str
    at: dict[str, Any]
    over: dict[str, Any]
    less: dict[str, Any]
    measured: float
    predicted: float
    low: float
    high: float
    movers: list[Mover]


class Bands(Struct, frozen=True, kw_only=True):
    """Bands of some cases."""

    schema: Literal["pagewalk.bands/1"] = "pagewalk.bands/1"
    bands: list[Band]


def parameters(machine: Machine) -> list[Parameter]:
    """Figures of a machine that are assumed and can matter to loads, with their limits."""
    found = []
    for place, (where, table) in enumerate(tables(machine)):
        if where in ("", "flush", "spaces") or (isinstance(table, Tlb) and not _loads(table)):
            continue
        label = getattr(table, "name", where)
        for key in table.assumed:
            value = getattr(table, key)
            if key in TIMES and isinstance(value, int) and value > 0:
                least, greatest = (max(round(value * factor), 1) for factor in TIMES[key])
                found.append(Parameter(place, f"{label} {key}", key, least, greatest))
            elif key == "policy" and value in POLICIES:
                other = POLICIES[1 - POLICIES.index(value)]
                found.append(Parameter(place, f"{label} {key}", key, value, other))
    return found


def _loads(table: Tlb) -> bool:
    return "load" in table.serves and table.holds != ["1G"]


def varied(machine: Machine, values: Sequence[tuple[Parameter, Any]]) -> Machine:
    """The machine with some figures exchanged; ways give way where they no longer divide the entries."""
    replaced: dict[int, Any] = {}
    every = list(tables(machine))
    for parameter, value in values:
        table = replaced.get(parameter.table, every[parameter.table][1])
        table = msgspec.structs.replace(table, **{parameter.key: value})
        if parameter.key == "entries" and table.ways and value % table.ways:
            table = msgspec.structs.replace(table, ways=0)
        replaced[parameter.table] = table
    made = {where: replaced.get(place, table) for place, (where, table) in enumerate(every)}
    changes: dict[str, Any] = {
        kind: [made[f"{kind}[{i}]"] for i in range(len(getattr(machine, kind)))]
        for kind in ("tlb", "psc", "cache")
    }
    changes |= {"memory": made["memory"], "walker": made["walker"]}
    if machine.guest:
        host = [made[f"guest.host_psc[{i}]"] for i in range(len(machine.guest.host_psc))]
        changes["guest"] = msgspec.structs.replace(made["guest"], host_psc=host)
    varied_ = msgspec.structs.replace(machine, **changes)
    digest = ",".join(f"{p.name}={value}" for p, value in values)
    return msgspec.structs.replace(varied_, sha256=f"{machine.sha256} {digest}")


def bands(case: Case, advance: Callable[[int], None] | None = None) -> list[Band]:
    """Give the band of the first, middle and last value of each measured table of a case.

    Parameters
    ----------
    case : Case
    advance : callable, optional
        Called with the machines tried since the last call, from any thread.

    Raises
    ------
    BadInput
        The case predicts nothing that depends on a machine, or as `pagewalk.study.validation.validate`.
    """
    if isinstance(case.pattern, Unpredicted | BootTables):
        raise BadInput(case.name, "no machine is in it whose figures could be assumed", "name another case")
    machine = machine_of(case)
    known: Known = {}
    drawn = parameters(machine)
    ends = [varied(machine, [(p, p.at(share))]) for p in drawn for share in (0.0, 1.0)]
    designs = [
        varied(machine, [(p, p.at(float(share))) for p, share in zip(drawn, shares, strict=True)])
        for shares in hypercube(len(drawn), SAMPLES)
    ]

    def tried_on(one: Machine) -> list[float]:
        found = _values(case, one, known)
        if advance:
            advance(1)
        return found

    plain = tried_on(machine)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, THREADS)) as pool:
        found = list(pool.map(tried_on, ends + designs))
    alone = [found[at : at + 2] for at in range(0, len(ends), 2)]
    together = found[len(ends) :]
    return [_band(number, case, row, plain, drawn, alone, together) for number, row in enumerate(_rows(case))]


def tried(case: Case) -> int:
    """How many times `bands` calls `advance` for a case."""
    return 1 + 2 * len(parameters(machine_of(case))) + SAMPLES


def hypercube(dimensions: int, samples: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Points of the unit cube, one in each of `samples` slices along every dimension.

    Returns
    -------
    ndarray of float64, shape (samples, dimensions)
    """
    source = np.random.PCG64(np.random.SeedSequence(seed))
    orders = [np.argsort(source.random_raw(samples), kind="stable") for _ in range(dimensions)]
    return (np.array(orders, np.float64).reshape(dimensions, samples).T + 0.5) / samples


def _rows(case: Case) -> list[tuple[Any, dict[str, Any], float]]:
    """First, middle and last value of each measured table: the table, what is changed, the value."""
    rows = []
    for entry in case.measured:
        values = entry.values or [entry.value or 0.0]
        places = sorted({0, len(values) // 2, len(values) - 1})
        rows += [(entry, points(entry)[place], values[place]) for place in places]
    return rows


def _values(case: Case, machine: Machine, known: Known) -> list[float]:
    predictor = Predictor(machine, case.folder, known)
    found = []
    for entry, keys, _ in _rows(case):
        found.append(predictor.value(changed(case.pattern, keys, "at"), entry).value)
    return found


def _band(
    number: int,
    case: Case,
    row: tuple[Any, dict[str, Any], float],
    plain: list[float],
    drawn: list[Parameter],
    alone: list[list[list[float]]],
    together: list[list[float]],
) -> Band:
    entry, keys, measured = row
    movers = [
        Mover(
            name=p.name,
            least=p.least,
            greatest=p.greatest,
            at_least=low[number],
            at_greatest=high[number],
        )
        for p, (low, high) in zip(drawn, alone, strict=True)
    ]
    moved = [m for m in movers if _reach(m, plain[number]) >= 1e-3 * abs(plain[number])]
    every = [values[number] for values in together] + [plain[number]]
    return Band(
        case=case.name,
        quantity=entry.quantity,
        at=keys,
        over=entry.over,
        less=entry.less,
        measured=measured,
        predicted=plain[number],
        low=min(every),
        high=max(every),
        movers=sorted(moved, key=lambda m: -_reach(m, plain[number])),
    )


def _reach(mover: Mover, plain: float) -> float:
    return max(abs(mover.at_least - plain), abs(mover.at_greatest - plain))
