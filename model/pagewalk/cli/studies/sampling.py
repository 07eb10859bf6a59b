"""sample."""

import math

import click

from pagewalk.cli.answer import as_json, json_option, printed
from pagewalk.cli.progress import progress, say_if_compiling
from pagewalk.cli.usage import examples, machines_option, mappings_option
from pagewalk.errors import BadInput


@click.command(epilog=examples("pagewalk sample sample:gitdiff -m textbook-setassoc --check"))
@click.argument("trace")
@machines_option
@mappings_option
@click.option(
    "--share",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.02,
    show_default=True,
    help="Of the records that shall be in windows; short traces need more.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the windows' places.")
@click.option("--check", is_flag=True, help="Replay the whole trace too, and show both.")
@json_option
def sample(
    trace: str,
    machines: tuple[str, ...],
    mappings: tuple[str, ...],
    share: float,
    seed: int,
    check: bool,
    json_file: str | None,
) -> None:
    """Estimate the misses of TRACE from windows of it, each warmed up, with error bars."""
    if math.isnan(share):
        raise BadInput("--share", "is no number", "give one above 0, up to 0.5")
    from pagewalk.hardware.load import load
    from pagewalk.report.studies.sampling import show
    from pagewalk.study.replays import subject
    from pagewalk.study.sampling.answer import sampled

    loaded = [load(name) for name in machines or ("intel-skylake-sp",)]
    opened = subject(trace)
    say_if_compiling()
    with progress("sampling", opened.trace.accesses) as advance:
        found = sampled(
            opened,
            loaded,
            mappings or ("base", "pmd"),
            share=share,
            seed=seed,
            check=check,
            progress=advance,
        )
    if printed(as_json(found), json_file):
        return
    show(found)
