"""report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from pagewalk.cli.progress import progress
from pagewalk.cli.usage import examples, page_option
from pagewalk.errors import BadInput
from pagewalk.files import read_at_most, write_whole
from pagewalk.replay.result import LARGEST_BYTES, Result, read

SWEEP = "cells.jsonl"
"""What `pagewalk sweep` calls its rows."""


class _Kind(msgspec.Struct):
    """What a JSON file says that it is."""

    schema: str = ""


def _kind(path: Path) -> str:
    """result, curve, validation or sweep; "" for any other file."""
    if path.name == SWEEP:
        return "sweep"
    try:
        said = msgspec.json.decode(read_at_most(path, LARGEST_BYTES), type=_Kind).schema
    except (msgspec.DecodeError, UnicodeDecodeError, OSError, BadInput):
        return ""
    name, _, version = said.removeprefix("pagewalk.").partition("/")
    return name if name in ("result", "curve", "validation") and version else ""


def _named(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """The files named, and those in folders that are named, with their kinds."""
    found = []
    for path in paths:
        if path.is_dir():
            files = sorted((*path.rglob("*.json"), *path.rglob(SWEEP)))
            inside = [(file, kind) for file in files if (kind := _kind(file))]
            if not inside:
                raise BadInput(path, "no result in it", "name a result, or the folder of pagewalk run")
            found += inside
        else:
            found.append((path, _kind(path) or "result"))
    return list(dict.fromkeys(found))


def _decode(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(path, f"damaged: {error}", "make it again") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: line {number}", f"no row of a sweep: {error}", "run it again") from error
        wanted = {"mapping"} if row.get("error") else {"mapping", "walk_cycles", "accesses"}
        if missing := sorted(wanted - row.keys()):
            raise BadInput(f"{path}: line {number}", f"no {missing[0]} in it", "name a sweep's cells.jsonl")
        rows.append(row)
    if not rows:
        raise BadInput(path, "no row in it", "run the sweep")
    return rows


def _names(found: list[tuple[Path, Result]]) -> list[str]:
    """What to call each result: its trace, and where that is not enough its file."""
    traces = [result.trace.name for _, result in found]
    if len(set(traces)) == len(traces):
        return traces
    files = [path.parent.name if path.name == "result.json" else path.stem for path, _ in found]
    if len(set(files)) == len(files):
        return [f"{trace} ({file})" for trace, file in zip(traces, files, strict=True)]
    return [f"{trace} ({path})" for trace, (path, _) in zip(traces, found, strict=True)]


@click.command(
    epilog=examples(
        "pagewalk report out/gitdiff/result.json",
        "pagewalk report a.json b.json --out both.html",
        "pagewalk report out/gitdiff curve.json out/grid",
    )
)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULT...")
@page_option("report.html unless named.")
def report(results: tuple[Path, ...], out: Path | None) -> None:
    """Make one page of each RESULT (a file, or a folder with such): to mail, to print, to read on a phone.

    A RESULT is the JSON of run, replay, curve or validate, or a sweep's cells.jsonl. The page needs no
    network. Its figures are written beside it too, as PNG and SVG.
    """
    from pagewalk.report.figures import save_all
    from pagewalk.report.pages.result import Beside, Named, page
    from pagewalk.report.studies.kernel_life import save_life
    from pagewalk.study.curve import Curves
    from pagewalk.study.validation.validate import Validation

    files: dict[str, list[Path]] = {"result": [], "curve": [], "validation": [], "sweep": []}
    for path, kind in _named(results):
        files[kind].append(path)
    found = [(path, read(path)) for path in files["result"]]
    named = [Named(name, result) for name, (_, result) in zip(_names(found), found, strict=True)]
    beside = Beside(
        [(path.parent.name or "sweep", _rows(path)) for path in files["sweep"]],
        [_decode(path, Curves) for path in files["curve"]],
        [_decode(path, Validation) for path in files["validation"]],
    )
    if not (named or beside.sweeps or beside.curves):
        raise BadInput(results[0], "nothing but validations", "name a result too: pagewalk report RESULT...")
    target = out or Path("report.html")
    folder = target.with_name(f"{target.stem}-figures")
    with progress("drawing", 1 + len(named)) as advance:
        content = page(named, beside)
        for number, one in enumerate(named, 1):
            if advance:
                advance(1)
            inside = folder if len(named) == 1 else folder / str(number)
            save_all(one.result, inside)
            save_life(one.result, inside)
    write_whole(target, content.encode())
    click.echo(f"{target}, and its figures in {folder}/" if named else f"{target}")
