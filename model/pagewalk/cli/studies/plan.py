"""plan."""

import math
from collections.abc import Callable
from pathlib import Path

import click

from pagewalk.cli.answer import json_option, printed
from pagewalk.cli.progress import progress
from pagewalk.cli.usage import MACHINE, examples, page_option
from pagewalk.errors import BadInput
from pagewalk.files import write_whole

_FILES = {
    "vmallocinfo": "All areas.",
    "meminfo": "Memory, direct map.",
    "buddyinfo": "Free blocks, NUMA nodes.",
    "vmstat": "Splits and compaction.",
    "cpuinfo": "The processor.",
    "dmesg": "Boot log: release, parameters, hash tables.",
    "events": "vmalloc:* events as perf script prints them.",
}


def _file_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, what in reversed(_FILES.items()):
        command = click.option(f"--{name}", type=click.Path(path_type=Path), metavar="F", help=what)(command)
    return command


@click.command(
    epilog=examples(
        "sudo .venv/bin/pagewalk plan --out plan.html",
        "pagewalk plan --vmallocinfo F --meminfo F --buddyinfo F --kernel 6.12 -m amd-zen3-milan",
        "pagewalk plan --fleet DIR --out fleet.html",
    )
)
@_file_options
@click.option(
    "--kernel", default="", metavar="RELEASE", help="Of the machine, like 6.12; else as its files say."
)
@click.option("--machine", "-m", default="", metavar="NAME|FILE.toml", help=f"{MACHINE} Else by cpuinfo.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=1e12),
    default=1e6,
    show_default=True,
    help="Accesses a second to each caller's memory, where no recording tells.",
)
@click.option(
    "--recorded", type=click.Path(path_type=Path), metavar="RESULT", help="A replay of what runs there."
)
@click.option(
    "--fleet",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Many machines: a folder of files for each.",
)
@page_option("Write the plan as a page too.")
@json_option
def plan(
    kernel: str,
    machine: str,
    rate: float,
    recorded: Path | None,
    fleet: Path | None,
    out: Path | None,
    json_file: str | None,
    **files: Path | None,
) -> None:
    """Tell which areas of a machine are, or could be, mapped by large leaves, and whether that pays.

    Without files: this machine, from /proc (as root, to see its areas). With any file: only the files given.
    """
    given = {name: path for name, path in files.items() if path is not None}
    if math.isnan(rate):
        raise BadInput("--rate", "is no number", "give one above 0")
    if fleet and (given or recorded):
        raise BadInput("--fleet", "takes no other file", "put each machine's files in a folder of its own")
    from pagewalk.report.pages import plan as pages
    from pagewalk.report.studies.plan import show, show_fleet
    from pagewalk.study.planning import fleet as fleets
    from pagewalk.study.planning import plan as plans
    from pagewalk.study.planning.snapshot import Files, running, take

    if fleet:
        hosts = sum(path.is_dir() for path in fleet.iterdir()) if fleet.is_dir() else 0
        with progress("planning", hosts) as advance:
            many = fleets.plan_fleet(
                fleet, kernel=kernel, processor=machine, accesses_per_second=rate, progress=advance
            )
        if not _write(json_file, fleets.encode(many), out, lambda: pages.fleet_page(many)):
            show_fleet(many)
        return
    if given:
        snapshot = take(Files(**given), kernel=kernel, processor=machine)
    else:
        snapshot = running(kernel=kernel, processor=machine)
    result = None
    if recorded:
        from pagewalk.replay.result import read

        result = read(recorded)
    with progress("replaying large areas", None) as advance:
        one = plans.plan(snapshot, accesses_per_second=rate, recorded=result, progress=advance)
    if not _write(json_file, plans.encode(one), out, lambda: pages.plan_page(one)):
        show(one)


def _write(json_file: str | None, encoded: bytes, out: Path | None, page: Callable[[], str]) -> bool:
    """Write JSON and page as asked; whether standard output is taken."""
    if out:
        write_whole(out, page().encode())
    return printed(encoded, json_file)
