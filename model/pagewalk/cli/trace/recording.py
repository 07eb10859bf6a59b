"""trace record."""

import sys
from pathlib import Path

import click

from pagewalk.cli.progress import progress, say_if_compiling
from pagewalk.cli.trace.written import written
from pagewalk.cli.usage import examples


@click.command(
    context_settings={"ignore_unknown_options": True},
    short_help="run a program and write what it accesses as a trace folder",
    epilog=examples(
        "pagewalk trace record -- ls -R /usr",
        "pagewalk trace record --out out/ls --records 1000000 -- ls -R /usr",
    ),
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make; PROGRAM.trace unless named.")
@click.option("--records", type=click.IntRange(1), help="End the program after so many.")
@click.option(
    "--with",
    "tool",
    type=click.Choice(["valgrind", "drmemtrace"]),
    help="By default the first of them that is installed; drmemtrace is DynamoRIO's.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def record(out: Path | None, records: int | None, tool: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND under valgrind or DynamoRIO and write what it accesses as a trace folder.

    Write -- before COMMAND. Its memory map becomes the layout: anonymous memory is what the mapping pmd
    maps with huge pages. Under valgrind a program runs some 50 to 100 times slower than alone.
    """
    from pagewalk.trace.record.program import record
    from pagewalk.trace.store.write import new_target

    target = out or Path(f"{Path(command[0]).name}.trace")
    new_target(target)
    say_if_compiling()
    with progress("recording", records) as advance:
        status = record(command, target, records, advance, tool)
    if status:
        print(f"{command[0]} ended with status {status}", file=sys.stderr)
    written(target)
