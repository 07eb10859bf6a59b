"""A sweep: a grid of machines, changed fields, mappings and traces, one row for each cell; resumable.

Rows are appended to ``cells.jsonl`` as they come, each in one write, so that a killed sweep loses at most the
cells that were under way. Cells run through the interface of `concurrent.futures`: threads here, or the
workers of a Dask cluster.
"""

import csv
import hashlib
import io
import itertools
import math
import os
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from pagewalk.errors import BadInput
from pagewalk.files import write_whole
from pagewalk.hardware.load import build, load
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import replay
from pagewalk.study.replays import Subject, subject

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
        sweep = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Sweep)
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


@lru_cache(maxsize=4)
def _subject(trace: str) -> Subject:
    return subject(trace)


@lru_cache(maxsize=8)
def _mapping(trace: str, mapping: str, geometry_of: str) -> Mapping:
    return _subject(trace).mapped(mapping, load(geometry_of))


def run_cell(cell: Cell) -> dict[str, Any]:
    """Replay one cell; its row. A machine that cannot be is a row with an error."""
    row: dict[str, Any] = {"cell": cell.key, "trace": cell.trace, "machine": cell.machine}
    row |= {"mapping": cell.mapping, "cache_mode": cell.cache_mode, **cell.changes}
    try:
        machine = changed(load(cell.machine), cell.changes)
    except BadInput as error:
        return {**row, "error": str(error)}
    mapping = _mapping(cell.trace, cell.mapping, cell.machine)
    found = replay(_subject(cell.trace).trace, mapping, machine, cache_mode=cell.cache_mode)
    row |= found.counts
    row |= {f"{name}_cycles": value for name, value in found.cycles.items()}
    row |= {f"{name}_bytes": value for name, value in found.memory.items()}
    return {**row, "replay_seconds": found.seconds["replay"]}


def done_cells(file: Path) -> dict[str, dict[str, Any]]:
    """Rows that an earlier run left; a last line that was cut short is dropped."""
    rows: dict[str, dict[str, Any]] = {}
    if not file.exists():
        return rows
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
            rows[row["cell"]] = row
        except (msgspec.DecodeError, KeyError) as error:
            mend = "remove the line or the folder"
            raise BadInput(f"{file}: line {number}", f"no row of a sweep: {error}", mend) from error
    if len(whole) < len(content):
        write_whole(file, whole)
    return rows


def sweep(
    grid: Sweep, folder: Path, executor: Executor | None = None, progress: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """Run what is left of a grid; return all rows in the order of the grid.

    Parameters
    ----------
    grid : Sweep
    folder : Path
        Gets ``cells.jsonl`` and, at the end, ``cells.csv``.
    executor : concurrent.futures.Executor, optional
        Where cells run; threads of this process unless given.
    progress : callable, optional
        Called with the number of cells done since the last call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "cells.jsonl"
    rows = done_cells(file)
    wanted = list(cells(grid))
    left = [cell for cell in wanted if cell.key not in rows]
    if progress is not None:
        progress(len(wanted) - len(left))
    pool = executor or ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    with file.open("ab", buffering=0) as out:
        running = [pool.submit(run_cell, cell) for cell in left]
        try:
            for future in as_completed(running):
                row = future.result()
                out.write(msgspec.json.encode(row) + b"\n")
                rows[row["cell"]] = row
                if progress is not None:
                    progress(1)
        except BaseException:
            for future in running:
                future.cancel()
            raise
        finally:
            if executor is None:
                pool.shutdown(wait=True, cancel_futures=True)
    table = [rows[cell.key] for cell in wanted]
    write_whole(folder / "cells.csv", _csv(table))
    return table


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
