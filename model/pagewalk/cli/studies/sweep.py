"""sweep: a grid of cells, resumable, here or on a cluster."""

import importlib
from concurrent.futures import Executor
from pathlib import Path

import click

from pagewalk.cli.progress import progress, say_if_compiling
from pagewalk.cli.usage import block, examples
from pagewalk.errors import BadInput

GRID = block(
    "SWEEP.toml (docs/sweeps.md has all its keys):",
    'schema = "pagewalk.sweep/1"',
    'traces = ["sample:gitdiff"]',
    'machines = ["textbook-setassoc"]',
    "[vary]",
    '"tlb.STLB.entries" = [512, 1024, 1536]',
)


@click.command(
    epilog=GRID
    + "\n\n"
    + examples("pagewalk sweep grid.toml", "pagewalk sweep grid.toml --scheduler tcp://host:8786")
)
@click.argument("grid", metavar="SWEEP.toml", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the rows; out/NAME unless named.")
@click.option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster, like tcp://host:8786.")
@click.option("--separately", is_flag=True, help="Share no work between cells; the counts are the same.")
@click.option("--gpu", is_flag=True, help="Replay what can be on an NVIDIA GPU; the counts are the same.")
def sweep(grid: Path, out: Path | None, scheduler: str | None, separately: bool, gpu: bool) -> None:
    """Replay every cell of the grid in SWEEP.toml; what an earlier run finished is not done again."""
    from pagewalk.replay.together.gpu import find_gpu
    from pagewalk.study.sweep.grid import cells, read
    from pagewalk.study.sweep.run import sweep as run

    if gpu and (scheduler or separately):
        other = "--scheduler" if scheduler else "--separately"
        raise BadInput(f"--gpu {other}", "a GPU replays cells together, in this process", "name one of them")
    wanted, device = read(grid), find_gpu() if gpu else None
    folder = out or Path("out") / grid.stem
    if folder.exists() and not folder.is_dir():
        raise BadInput(folder, "is not a folder", "name another with --out")
    say_if_compiling()
    with progress("cells", sum(1 for _ in cells(wanted))) as advance:
        executor = _cluster(scheduler) if scheduler else None
        rows = run(wanted, folder, executor, advance, not separately, device)
    failed = [row["error"] for row in rows if "error" in row]
    if len(failed) == len(rows):
        raise BadInput(grid, f"no cell is a possible machine: {failed[0]}", "mend machines or [vary]")
    click.echo(f"{len(rows):,} cells, {len(failed):,} of them no possible machine; cells.csv is in {folder}/")
    if device:
        click.echo(f"{device.machines:,} replayed on {device.device.name}")


def _cluster(address: str) -> Executor:
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        mend = "pip install 'pagewalk[cluster]'"
        raise BadInput(
            "--scheduler", "needs the package distributed, which is not installed", mend
        ) from error
    try:
        executor: Executor = distributed.Client(address, timeout="10s").get_executor()
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"--scheduler {address}", "no Dask scheduler answers there", "start one first"
        ) from error
    return executor
