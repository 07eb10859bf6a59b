"""A grid of machines, changed fields, mappings and traces, and the cells that it has."""

import hashlib
import itertools
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from pagewalk.errors import BadInput
from pagewalk.files import read_at_most
from pagewalk.hardware.load import build, load
from pagewalk.hardware.machine import Machine

LARGEST_BYTES = 1 << 26
"""A file beyond it is no sweep. Ours."""

MOST_CELLS = 1_000_000
"""Of one sweep. Ours: more are better cut into several."""

Value = bool | int | float | str


class Sweep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grid.

    Attributes
    ----------
    schema : str
        "pagewalk.sweep/1".
    traces, machines, mappings : list of str
        As on the command line of ``pagewalk replay``; files relative to the sweep's.
    vary : dict of str to list
        Field of a machine -> its values: "memory.latency_cycles", "tlb.STLB.ways" (array by name).
    cache_mode : {"walks-only", "full"}
    """

    schema: Literal["pagewalk.sweep/1"]
    traces: list[str]
    machines: list[str]
    mappings: list[str] = field(default_factory=lambda: ["base", "pmd"])
    vary: dict[str, list[Value]] = field(default_factory=dict)
    cache_mode: Literal["walks-only", "full"] = "walks-only"


class Cell(Struct, frozen=True, kw_only=True):
    """One point of the grid; of another machine description of the same name it is another cell."""

    trace: str
    machine: str
    machine_sha256: str
    mapping: str
    cache_mode: str
    changes: dict[str, Value]

    @property
    def key(self) -> str:
        """What the row of the cell is known by."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


def read(path: Path) -> Sweep:
    """Read a sweep file.

    Raises
    ------
    BadInput
        Not a sweep; the line names file, key and mend.
    """
    try:
        sweep = msgspec.convert(tomllib.loads(read_at_most(path, LARGEST_BYTES).decode()), Sweep)
    except OSError as error:
        raise BadInput(path, error.strerror or "cannot be read", "name a sweep file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(path, f"not TOML: {error}", "mend that line") from error
    except msgspec.ValidationError as error:
        raise BadInput(path, str(error), "docs/sweeps.md has the keys") from error
    empty = [key for key in ("traces", "machines", "mappings") if not getattr(sweep, key)]
    empty += [f"vary.{key}" for key, values in sweep.vary.items() if not values]
    if empty:
        raise BadInput(path, f"{empty[0]} is empty", "give it at least one value")
    sizes = map(len, (sweep.traces, sweep.machines, sweep.mappings))
    cells = math.prod([*sizes, *map(len, sweep.vary.values())])
    if cells > MOST_CELLS:
        raise BadInput(path, f"a grid of {cells:,} cells", f"cut it into sweeps of at most {MOST_CELLS:,}")

    def beside(name: str) -> str:
        return str((path.parent / name).resolve()) if (path.parent / name).exists() else name

    return msgspec.structs.replace(
        sweep, traces=[*map(beside, sweep.traces)], machines=[*map(beside, sweep.machines)]
    )


def cells(sweep: Sweep) -> Iterator[Cell]:
    """All cells of the grid, those that share a trace and a mapping next to each other."""
    digests = {name: load(name).sha256 for name in sweep.machines}
    for trace, mapping, machine in itertools.product(sweep.traces, sweep.mappings, sweep.machines):
        for values in itertools.product(*sweep.vary.values()):
            changes = dict(zip(sweep.vary, values, strict=True))
            yield Cell(
                trace=trace,
                machine=machine,
                machine_sha256=digests[machine],
                mapping=mapping,
                cache_mode=sweep.cache_mode,
                changes=changes,
            )


def changed(machine: Machine, changes: dict[str, Value]) -> Machine:
    """The machine with fields changed, checked as a file would be.

    Raises
    ------
    BadInput
        No such field, or no possible machine.
    """
    if not changes:
        return machine
    content: dict[str, Any] = msgspec.to_builtins(machine)
    for set_by_loader in ("id", "sha256"):
        content.pop(set_by_loader, None)
    content = {key: value for key, value in content.items() if value is not None}
    for path, value in changes.items():
        *tables, name = path.split(".")
        at: Any = content
        for table in tables:
            if isinstance(at, list):
                at = next((entry for entry in at if entry["name"] == table), None)
            else:
                at = at.get(table) if isinstance(at, dict) else None
        if not isinstance(at, dict) or name not in at:
            raise BadInput(
                f"vary.{path}", f"{machine.id} has no such field", f"pagewalk machines {machine.id}"
            )
        at[name] = value
        if "assumed" in at and "source" in at:
            at["assumed"] = {**at["assumed"], name: "varied by a sweep"}
    return build(content, machine.id, machine.id)
