"""One way in: whatever names a trace becomes a `Trace`."""

from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.trace.encode import Raw, encoded
from pagewalk.trace.readers import named, packed, readers
from pagewalk.trace.readers.pipe import is_pipe
from pagewalk.trace.sample import sample_path
from pagewalk.trace.store import columns
from pagewalk.trace.store.read import open_folder
from pagewalk.trace.synth.generate import generated
from pagewalk.trace.synth.spec import parse
from pagewalk.trace.trace import Trace


def open_trace(path: str | Path, format_: str = "") -> Trace:
    """Open a trace.

    Parameters
    ----------
    path : str or Path
        A trace folder, a file of a format in `pagewalk.trace.readers.READERS`, or ``sample:NAME`` for one
        that comes with the package, or ``synth:KIND?FIELD=VALUE&...`` for a synthetic one.
    format_ : str, optional
        Name of the reader of a file; else its content decides.

    Returns
    -------
    Trace

    Raises
    ------
    BadInput
        If there is nothing there, or it is in no known format, or damaged.
    """
    if str(path).startswith("sample:"):
        return open_folder(sample_path(str(path).removeprefix("sample:")))
    if str(path).startswith("synth:"):
        return encoded(generated(parse(str(path).removeprefix("synth:"))))
    path = Path(path)
    if not format_ and path.is_dir():
        return open_folder(path)
    return encoded(open_raw(path, format_))


def open_raw(path: Path, format_: str = "", *, digest: bool = True) -> Raw:
    """Open a file of another tool's format, not encoded yet.

    Parameters
    ----------
    path : Path
    format_ : str, optional
        Name of its reader; else its content decides.
    digest : bool
        Whether its SHA-256 will be asked for: the first reading then works it out on the way.

    Raises
    ------
    BadInput
        If it cannot be read, or is in no known format.
    """
    if not is_pipe(path):
        columns.regular_file(path)
    if not digest:
        packed.without_digest(path)
    if format_:
        return named(format_).read(path)
    head = packed.head(path)
    for reader in readers():
        if reader.recognises(path, head):
            return reader.read(path)
    names = ", ".join(reader.name for reader in readers())
    raise BadInput(path, "in no known format", f"give a trace folder or one of: {names}")
