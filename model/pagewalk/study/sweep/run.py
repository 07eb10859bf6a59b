"""Run a sweep, resumable: rows are appended to ``cells.jsonl`` as they come, each in one write.

A killed sweep loses at most the batches that were under way. They run through the interface of
`concurrent.futures`: threads here, or the workers of a Dask cluster.
"""

import csv
import io
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from pathlib import Path

import msgspec

from pagewalk.errors import BadInput
from pagewalk.files import write_whole
from pagewalk.replay.together.gpu import Gpu
from pagewalk.study.sweep.batch import Row, batches, run_batch
from pagewalk.study.sweep.grid import Sweep, cells

WORKERS = 16
"""Workers that batches are cut for on a cluster, which may grow while a sweep runs. Ours to choose."""


def done_cells(file: Path) -> dict[str, Row]:
    """Rows that an earlier run left; a last line that was cut short is dropped."""
    rows: dict[str, Row] = {}
    if not file.exists():
        return rows
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = msgspec.json.decode(line, type=Row)
            rows[row["cell"]] = row
        except (msgspec.DecodeError, KeyError) as error:
            mend = "remove the line or the folder"
            raise BadInput(f"{file}: line {number}", f"no row of a sweep: {error}", mend) from error
    if len(whole) < len(content):
        write_whole(file, whole)
    return rows


def sweep(
    grid: Sweep,
    folder: Path,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
    share: bool = True,
    gpu: Gpu | None = None,
) -> list[Row]:
    """Run what is left of a grid; return all rows in the order of the grid.

    Parameters
    ----------
    grid : Sweep
    folder : Path
        Gets ``cells.jsonl`` and, at the end, ``cells.csv``.
    executor : concurrent.futures.Executor, optional
        Where batches of cells run; threads of this process unless given.
    progress : callable, optional
        Called with the number of cells done since the last call.
    share : bool
        Whether what cells have in common is replayed once. Does not change any count.
    gpu : Gpu, optional
        Replays what it can, beside threads of this process. Does not change any count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "cells.jsonl"
    rows = done_cells(file)
    wanted = list(cells(grid))
    left = [cell for cell in wanted if cell.key not in rows]
    if progress is not None:
        progress(len(wanted) - len(left))
    threads = len(os.sched_getaffinity(0))
    pool = executor or ThreadPoolExecutor(threads)
    with file.open("ab", buffering=0) as out:
        cut = batches(left, WORKERS if executor else threads, gpu is not None)
        running = [pool.submit(run_batch, batch, share, gpu) for batch in cut]
        try:
            for future in as_completed(running):
                for row in future.result():
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


def _csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
