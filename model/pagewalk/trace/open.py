"""One way in: whatever names a trace becomes a `Trace`."""

from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.trace.encode import encoded
from pagewalk.trace.readers import READERS
from pagewalk.trace.sample import sample_path
from pagewalk.trace.store import columns
from pagewalk.trace.store.read import open_folder
from pagewalk.trace.synth.generate import generated
from pagewalk.trace.synth.spec import parse
from pagewalk.trace.trace import Trace

HEAD_BYTES = 4096
"""How much of a file its readers are shown to recognise it."""


def open_trace(path: str | Path) -> Trace:
    """Open a trace.

    Parameters
    ----------
    path : str or Path
        A trace folder, a file of a format in `pagewalk.trace.readers.READERS`, or ``sample:NAME`` for one
        that comes with the package, or ``synth:KIND?FIELD=VALUE&...`` for a synthetic one.

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
    try:
        if path.is_dir():
            return open_folder(path)
        columns.regular_file(path)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise BadInput(
            path, error.strerror or "cannot be read", "check the name and its permissions"
        ) from None
    for reader in READERS:
        if reader.recognises(path, head):
            return encoded(reader.read(path))
    names = ", ".join(reader.name for reader in READERS)
    raise BadInput(path, "in no known format", f"give a trace folder or one of: {names}")
