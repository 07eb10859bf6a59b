"""calibrate."""

from pathlib import Path
from shlex import quote

import click

from pagewalk.cli.progress import progress
from pagewalk.cli.usage import examples
from pagewalk.errors import BadInput
from pagewalk.files import ready, write_whole


@click.command(epilog=examples("pagewalk calibrate --out mine.toml", "pagewalk validate mine.case.toml"))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("calibrated.toml"),
    show_default=True,
    metavar="FILE.toml",
    help="The machine file; beside it FILE.case.toml, FILE.json and FILE.png.",
)
def calibrate(out: Path) -> None:
    """Measure this machine and write a machine file: no root, no counters, about a minute.

    Beside it: the chases that no fit used as a case for pagewalk validate, every curve as JSON, and a
    picture. Noise of other work can only slow chases down; the best of several passes counts.
    """
    if out.suffix != ".toml":
        raise BadInput(out, "is no .toml file", "name one, like calibrated.toml")
    ready(out)
    from pagewalk.study.calibration.calibrate import calibrate as run
    from pagewalk.study.calibration.timed.plan import TIMINGS
    from pagewalk.study.calibration.write import case_file, curves, machine_file

    with progress("measuring", TIMINGS) as advance:
        found = run(lambda: advance(1) if advance else None)
    write_whole(out, machine_file(found).encode())
    write_whole(out.with_suffix(".case.toml"), case_file(found, out.name).encode())
    write_whole(out.with_suffix(".json"), curves(found))
    from pagewalk.report.studies.calibration import figure, show
    from pagewalk.report.style import save

    save(lambda: figure(found), out.with_suffix(".png"))
    show(found)
    click.echo(f"\nWritten: {out}, and beside it .case.toml, .json, .png")
    click.echo(f"Next: pagewalk validate {quote(str(out.with_suffix('.case.toml')))}")
