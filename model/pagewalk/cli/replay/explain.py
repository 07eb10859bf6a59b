"""explain: one access, step by step."""

import click

from pagewalk.cli.answer import as_json, json_option, printed
from pagewalk.cli.progress import say_if_compiling
from pagewalk.cli.usage import MACHINE, MAPPING, examples


@click.command(
    epilog=examples(
        "pagewalk explain sample:gitdiff -n 1000",
        "pagewalk explain sample:gitdiff -n 16 -m amd-zen4-genoa --mapping pmd",
    )
)
@click.argument("trace")
@click.option(
    "--access", "-n", type=click.IntRange(min=0), required=True, help="Number of the access, from 0."
)
@click.option(
    "--machine", "-m", default="intel-skylake-sp", show_default=True, metavar="NAME|FILE.toml", help=MACHINE
)
@click.option(
    "--mapping", default="base", show_default=True, metavar="base|pmd|recorded|contpte", help=MAPPING
)
@click.option("--fetches", is_flag=True, help="Instruction fetches too, where one L1 TLB serves all.")
@json_option
def explain(
    trace: str, access: int, machine: str, mapping: str, fetches: bool, json_file: str | None
) -> None:
    """Replay TRACE up to one access and show what its translation did."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from pagewalk.hardware.load import load
    from pagewalk.replay.explain import explain as look
    from pagewalk.study.replays import subject

    described, opened = load(machine), subject(trace)
    say_if_compiling()
    found = look(opened.trace, opened.mapped(mapping, described), described, access, fetches=fetches or None)
    if json_file:
        which = {"schema": "pagewalk.explanation/1", "machine": described.id, "mapping": mapping}
        if printed(as_json({**which, **msgspec.to_builtins(found)}), json_file):
            return
    console = Console(highlight=False)
    console.print(
        f"access {found.position:,} (record {found.record:,}): a {found.kind} of {found.address:#x} on CPU "
        f"{found.cpu}, in {found.region}, mapped by a leaf of {found.leaf_bytes >> 10:,} KiB; "
        f"machine {described.id}, mapping {mapping}"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("step", "where", "outcome"):
        table.add_column(name)
    table.add_column("cycles", justify="right")
    for step in found.steps:
        table.add_row(step.what, step.where, step.outcome, f"{step.cycles:,}" if step.cycles else "")
    table.add_row("translation", "", "", f"{found.cycles:,}", style="bold")
    console.print(table)
