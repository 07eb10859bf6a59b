"""run, replay."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pagewalk.cli.answer import json_option, printed
from pagewalk.cli.listing import listing
from pagewalk.cli.progress import progress, say_if_compiling
from pagewalk.cli.usage import examples, machines_option, mappings_option
from pagewalk.errors import BadInput
from pagewalk.files import ready, write_whole
from pagewalk.replay.result import Result, encode

if TYPE_CHECKING:
    from pagewalk.study.replays import Subject
    from pagewalk.study.scenario import Scenario


def _replayed(
    opened: Subject,
    machines: Sequence[str],
    mappings: Sequence[str],
    fetches: bool | None,
    cache_mode: str,
    threads: int = 0,
) -> Result:
    from pagewalk.hardware.load import load
    from pagewalk.study.replays import replays, result

    loaded = [load(name) for name in machines]
    say_if_compiling()
    total = opened.trace.accesses * len(loaded) * len(mappings)
    with progress("replaying", total) as advance:
        found = replays(
            opened,
            loaded,
            mappings,
            fetches=fetches,
            cache_mode=cache_mode,
            threads=threads,
            progress=advance,
        )
    return result(opened, loaded, found, shlex.join(["pagewalk", *sys.argv[1:]]))


def _played(scenario: Scenario) -> Result:
    from pagewalk.hardware.load import load
    from pagewalk.study.play.result import lives_of, played

    machines = [load(name) for name in scenario.machines]
    lives = lives_of(scenario, machines)
    say_if_compiling()
    records = {(name, arch): one.trace.accesses for (name, arch), one in lives.items()}
    total = sum(records[table.name, m.geometry] for m in machines for table in scenario.kernel)
    with progress("replaying", total) as advance:
        return played(scenario, machines, lives, shlex.join(["pagewalk", *sys.argv[1:]]), advance)


def _answer(found: Result, json_file: str | None) -> None:
    if printed(encode(found), json_file):
        return
    from pagewalk.report.studies.kernel_life import show_life
    from pagewalk.report.tables import show

    show(found)
    show_life(found)


@click.command(
    epilog=examples(
        "pagewalk replay sample:gitdiff -m amd-zen3-milan -m intel-sapphire-rapids",
        "pagewalk replay ls.trace -m mine.toml --json result.json",
        "pagewalk replay 'synth:zipf?size=1G&accesses=1e7' --mapping base",
    )
)
@click.argument("trace")
@machines_option
@mappings_option
@click.option("--fetches", is_flag=True, help="Instruction fetches too, where one L1 TLB serves all.")
@click.option(
    "--cache-mode",
    type=click.Choice(["walks-only", "full"]),
    default="walks-only",
    show_default=True,
    help="Whether the trace's own accesses go through the data caches too.",
)
@click.option(
    "--layout",
    type=click.Path(path_type=Path),
    help="Where areas lay: /proc/vmallocinfo, vmalloc trace events or a page-table dump.",
)
@click.option("--kernel", default="", metavar="RELEASE", help="Release that the layout is of, like 6.12.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="At once; as many as there are CPUs unless given. Changes no count.",
)
@json_option
def replay(
    trace: str,
    machines: tuple[str, ...],
    mappings: tuple[str, ...],
    fetches: bool,
    cache_mode: str,
    layout: Path | None,
    kernel: str,
    threads: int | None,
    json_file: str | None,
) -> None:
    """Replay TRACE over mappings and machines; base and pmd on intel-skylake-sp unless named.

    TRACE is a trace folder, another tool's file (pagewalk trace formats), sample:gitdiff or synth:KIND.
    """
    from pagewalk.study.replays import subject

    chosen = machines or ("intel-skylake-sp",)
    opened = subject(trace, layout, kernel)
    found = _replayed(opened, chosen, mappings or ("base", "pmd"), fetches or None, cache_mode, threads or 0)
    _answer(found, json_file)


@click.command(
    epilog=examples(
        "pagewalk run",
        "pagewalk run --list",
        "pagewalk run exchange",
        "pagewalk run mine.toml --out results/mine",
    )
)
@click.argument("scenario", default="gitdiff")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for figures and JSON; out/NAME unless named."
)
@click.option("--list", "list_", is_flag=True, help="List the scenarios that come with pagewalk.")
@json_option
def run(scenario: str, out: Path | None, list_: bool, json_file: str | None) -> None:
    """Run SCENARIO (a name or a TOML file): replay, compare, write figures and JSON.

    Without arguments: a real `git diff` on a real kernel, its large vmalloc areas mapped by 4 KiB
    and by 2 MiB leaves.
    """
    from pagewalk.study.replays import subject
    from pagewalk.study.scenario import packaged, read

    if list_:
        listing([(name, read(name).title) for name in packaged()])
        return
    chosen = read(scenario)
    folder = out or Path("out") / chosen.name
    if folder.exists() and not folder.is_dir():
        raise BadInput(folder, "is not a folder", "name another with --out")
    ready(folder / "result.json")
    if chosen.kernel:
        found = _played(chosen)
    else:
        found = _replayed(subject(chosen.trace), chosen.machines, chosen.mappings, None, chosen.cache_mode)
    write_whole(folder / "result.json", encode(found))
    from pagewalk.report.figures import save_all
    from pagewalk.report.studies.kernel_life import save_life

    save_all(found, folder)
    save_life(found, folder)
    _answer(found, json_file)
    if json_file != "-":
        click.echo(f"\nFigures and result.json are in {folder}/")
        click.echo(
            f"Next: pagewalk report {shlex.quote(str(folder / 'result.json'))}   (all of it as one page)"
        )
