"""Results as flat tables, for pandas, Polars or Arrow: one row for each replay, region, window or caller.

The libraries are imported when they are asked for; none is needed otherwise.
"""

import importlib
from collections.abc import Callable
from typing import Any

from pagewalk.replay.result import Replay, Result
from pagewalk.study.compare import comparisons

Row = dict[str, str | int | float]


def replay_rows(result: Result) -> list[Row]:
    """One row for each replay: every count, cycles, bytes, and where walk references were found.

    Columns are ``trace``, ``machine``, ``mapping``, ``cache_mode``, the names of counts as they are, and
    those of groups with the group before them: ``cycles.walk``, ``memory.page_tables``, ``in.L1D``,
    ``level.PTE`` (walk cycles by the table that was read). What a machine has not is 0.
    """
    rows = [
        {
            **_which(result, replay),
            "cache_mode": replay.cache_mode,
            **replay.counts,
            **{f"cycles.{name}": value for name, value in replay.cycles.items()},
            **{f"memory.{name}": value for name, value in replay.memory.items()},
            **{f"in.{name}": value for name, value in replay.walk_refs_in.items()},
            **{f"level.{name}": value for name, value in replay.walk_cycles_by_level.items()},
        }
        for replay in result.replays
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, 0) for name in columns} for row in rows]


def region_rows(result: Result) -> list[Row]:
    """One row for each region of each replay; columns as of `pagewalk.replay.result.RegionCost`."""
    return [
        {
            **_which(result, replay),
            **{name: getattr(region, name) for name in region.__struct_fields__},
        }
        for replay in result.replays
        for region in replay.by_region
    ]


def window_rows(result: Result) -> list[Row]:
    """One row for each window of each replay: ``start`` (its first record), misses and walk cycles."""
    return [
        {
            **_which(result, replay),
            "start": number * replay.windows.accesses_per_window,
            "l1_misses": l1,
            "stlb_misses": stlb,
            "walk_cycles": cycles,
        }
        for replay in result.replays
        for number, (l1, stlb, cycles) in enumerate(
            zip(replay.windows.l1_misses, replay.windows.stlb_misses, replay.windows.walk_cycles, strict=True)
        )
    ]


def caller_rows(result: Result) -> list[Row]:
    """One row for each caller on each machine that has two mappings: what the second saves and costs."""
    return [
        {
            "trace": result.trace.name,
            "machine": pair.after.machine,
            "caller": caller.name,
            "regions": caller.regions,
            "size_bytes": caller.size_bytes,
            "accesses": caller.accesses,
            "walk_cycles_before": caller.walk_cycles[0],
            "walk_cycles_after": caller.walk_cycles[1],
            "saved_cycles": caller.saved_cycles,
            "paid_bytes": caller.paid_bytes,
        }
        for pair in comparisons(result)
        for caller in pair.callers
    ]


def to_pandas(result: Result, rows: Callable[[Result], list[Row]] = replay_rows) -> Any:
    """A pandas.DataFrame of those rows; ImportError that says what to install where pandas is missing."""
    return _library("pandas").DataFrame(rows(result))


def to_polars(result: Result, rows: Callable[[Result], list[Row]] = replay_rows) -> Any:
    """A polars.DataFrame of those rows; ImportError that says what to install where Polars is missing."""
    return _library("polars").DataFrame(rows(result), infer_schema_length=None)


def to_arrow(result: Result, rows: Callable[[Result], list[Row]] = replay_rows) -> Any:
    """A pyarrow.Table of those rows; ImportError that says what to install where pyarrow is missing."""
    return _library("pyarrow").Table.from_pylist(rows(result))


def _which(result: Result, replay: Replay) -> Row:
    return {"trace": result.trace.name, "machine": replay.machine, "mapping": replay.mapping}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is not installed: pip install {name}") from error
