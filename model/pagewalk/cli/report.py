"""report."""

from pathlib import Path

import click

from pagewalk.errors import BadInput
from pagewalk.files import write_whole
from pagewalk.replay.result import Result, read


def _found(paths: tuple[Path, ...]) -> list[tuple[Path, Result]]:
    """The results named, and those in folders that are named."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*.json")) if _is_result(file)]
            if not inside:
                raise BadInput(path, "no result in it", "name a result, or the folder of pagewalk run")
            found += inside
        else:
            found.append(path)
    return [(path, read(path)) for path in dict.fromkeys(found)]


def _is_result(file: Path) -> bool:
    """Whether a file of a folder says that it is a result: a folder may hold other JSON too."""
    with file.open("rb") as opened:
        return b"pagewalk.result/" in opened.read(200)


def _names(found: list[tuple[Path, Result]]) -> list[str]:
    """What to call each result: its trace, and where that is not enough its file."""
    traces = [result.trace.name for _, result in found]
    if len(set(traces)) == len(traces):
        return traces
    files = [path.parent.name if path.name == "result.json" else path.stem for path, _ in found]
    if len(set(files)) == len(files):
        return [f"{trace} ({file})" for trace, file in zip(traces, files, strict=True)]
    return [f"{trace} ({path})" for trace, (path, _) in zip(traces, found, strict=True)]


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULT...")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.html", help="report.html unless named.")
def report(results: tuple[Path, ...], out: Path | None) -> None:
    """Make one page of each RESULT (a file, or a folder with such): to mail, to print, to read on a phone.

    The page needs no network. Its figures are written beside it too, as PNG and SVG.
    """
    from pagewalk.report.figures import save_all
    from pagewalk.report.pages.result import Named, page

    found = _found(results)
    named = [Named(name, result) for name, (_, result) in zip(_names(found), found, strict=True)]
    target = out or Path("report.html")
    content = page(named)
    folder = target.with_name(f"{target.stem}-figures")
    for number, one in enumerate(named, 1):
        save_all(one.result, folder if len(named) == 1 else folder / str(number))
    write_whole(target, content.encode())
    click.echo(f"{target}, and its figures in {folder}/")
