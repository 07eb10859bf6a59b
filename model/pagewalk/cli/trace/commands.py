"""trace info, formats, convert, synth; and the group of all trace commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pagewalk.cli.answer import as_json, json_option, printed
from pagewalk.cli.progress import progress, say_if_compiling
from pagewalk.cli.trace.cutting import cutting, part
from pagewalk.cli.trace.recording import record
from pagewalk.cli.trace.written import written
from pagewalk.cli.usage import examples, plot_option
from pagewalk.trace.synth.kinds import KINDS
from pagewalk.trace.synth.spec import fields, make

if TYPE_CHECKING:
    from pagewalk.linux.layout import Layout
    from pagewalk.trace.trace import Trace


@click.group(no_args_is_help=False)
def trace() -> None:
    """Look at, convert, make and record traces.

    A trace is a trace folder, a file of a format that pagewalk trace formats lists, sample:NAME, or
    synth:KIND?FIELD=VALUE&...
    """


format_option = click.option(
    "--format", "format_", default="", metavar="NAME", help="The file's format; else its content decides."
)


@trace.command(
    short_help="what a trace is: accesses, pages, where they lie",
    epilog=examples("pagewalk trace info sample:gitdiff --plot gitdiff.svg"),
)
@click.argument("trace")
@format_option
@plot_option("Draw it, too.")
@json_option
def info(trace: str, format_: str, plot: Path | None, json_file: str | None) -> None:
    """Print what TRACE is: accesses, pages, where they lie, size on disk.

    The drawing shows addresses over time, how hot pages are, and how far back accesses reach.
    """
    from pagewalk.linux.layout import read_layout
    from pagewalk.report.trace.information import information
    from pagewalk.report.trace.terminal import show
    from pagewalk.trace.open import open_trace

    say_if_compiling()
    opened = open_trace(trace, format_)
    folder = opened.origin
    layout = read_layout(folder) if folder is not None and folder.is_dir() else None
    with progress("reading", opened.accesses) as advance:
        found = information(opened, layout, advance)
    if plot is not None:
        _draw(opened, layout, plot)
    if printed(as_json(found), json_file):
        return
    show(found)


def _draw(opened: Trace, layout: Layout | None, plot: Path) -> None:
    from pagewalk.report.style import save
    from pagewalk.report.trace.picture import figure
    from pagewalk.trace.density import density

    with progress("looking", opened.accesses) as advance:
        seen = density(opened, advance)
    save(lambda: figure(opened, layout, seen), plot)


@trace.command(short_help="formats that a trace can be read from")
def formats() -> None:
    """List the formats that a trace can be read from, and what each tells of an access."""
    from pagewalk.report.trace.terminal import show_formats
    from pagewalk.trace.readers import readers

    show_formats(list(readers()))


@trace.command(
    short_help="write a trace, or part of it, as a trace folder",
    epilog=examples(
        "pagewalk trace convert trace.zip traces/mine",
        "pagewalk trace convert sample:gitdiff loads --kinds load --records 0:1000000",
        "perf script -F +addr,+ip | pagewalk trace convert - traces/mine",
    ),
)
@click.argument("trace", metavar="IN")
@click.argument("out", type=click.Path(path_type=Path))
@format_option
@cutting
@click.option("--plain", is_flag=True, help="Columns as .npy, not .npy.zst: larger, for memory-mapping.")
def convert(trace: str, out: Path, format_: str, plain: bool, **wanted: Any) -> None:
    """Write the trace IN, or part of it, as a new trace folder OUT, with the layout that lies beside it.

    Different options narrow the part; one that is repeated widens it. IN may be a pipe, or - for standard
    input: the whole of it is read once.
    """
    from pagewalk.trace.open import open_raw, open_trace
    from pagewalk.trace.store.write import new_target, write_stream, write_trace

    new_target(out)
    say_if_compiling()
    path = Path("/dev/stdin" if trace == "-" else trace)
    whole = not plain and all(value in (None, ()) for value in wanted.values())
    if whole and (path.is_file() or path.is_fifo()):
        raw = open_raw(path, format_, digest=False)
        source = f"{path.name}, {path.stat().st_size} bytes" if path.is_file() else path.name
        with progress("writing", None) as advance:
            write_stream(raw.read(1 << 20), out, source=source, about=raw.about, progress=advance)
        written(out)
        return
    opened = open_trace(path if trace == "-" else trace, format_)
    origin = f"{opened.name}, sha256 {opened.digest()}"
    with progress("looking", opened.accesses) as advance:
        opened, said = part(opened, **wanted, progress=advance)
    with progress("writing", opened.accesses) as advance:
        origin = f"{said} of {origin}" if said else origin
        write_trace(opened, out, compress=not plain, source=origin, progress=advance)
    written(out)


@trace.group(
    no_args_is_help=False,
    short_help="make a synthetic trace",
    epilog=examples("pagewalk trace synth zipf OUT --size 1G --accesses 1e7"),
)
def synth() -> None:
    """Make a synthetic trace."""


def _synth_command(name: str) -> click.Command:
    described = fields(KINDS[name])

    def make_trace(out: Path, **given: str | tuple[str, ...] | None) -> None:
        from pagewalk.trace.store.write import new_target, write_stream
        from pagewalk.trace.synth.generate import generated

        new_target(out)
        kind = make(name, {key: value for key, value in given.items() if value})
        say_if_compiling()
        raw = generated(kind)
        with progress("making", kind.accesses) as advance:
            write_stream(raw.read(1 << 20), out, about=raw.about, progress=advance)
        written(out)

    options = [
        click.Option(
            [f"--{field.replace('_', '-')}", field],
            multiple=field == "part",
            metavar=(about.extra or {}).get("unit", "VALUE").upper(),
            help=f"{about.description}  [default: {_default(name, field)}]",
        )
        for field, (_, about) in described.items()
    ]
    out = click.Argument(["out"], type=click.Path(path_type=Path))
    about = KINDS[name].__doc__ or ""
    return click.Command(
        name,
        callback=make_trace,
        params=[out, *options],
        help=about,
        short_help=re.split(r"[:;.]", about)[0],
    )


def _default(name: str, field: str) -> str:
    value = getattr(KINDS[name](), field)
    if isinstance(value, tuple):
        return " ".join(value)
    unit = (fields(KINDS[name])[field][1].extra or {}).get("unit")
    if unit == "address":
        return hex(value)
    if unit == "bytes" and value % 1024 == 0:
        scale = max(power for power in (10, 20, 30) if value % (1 << power) == 0)
        return f"{value >> scale}{'KMG'[scale // 10 - 1]}"
    return str(value)


trace.add_command(record)
for _name in KINDS:
    synth.add_command(_synth_command(_name))
