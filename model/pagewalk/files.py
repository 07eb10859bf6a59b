"""Write a file whole or not at all; read one that has an end."""

import os
from contextlib import suppress
from pathlib import Path

from pagewalk.errors import BadInput

_MEND = "name another folder"


def write_whole(target: Path, content: bytes) -> None:
    """Write under a temporary name beside the target, then rename.

    A link stays, and what it leads to is written; into a device or a pipe the content goes as it is.

    Raises
    ------
    BadInput
        The folder cannot be made or written; nothing is left behind.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            target.write_bytes(content)
            return
        file = Path(os.path.realpath(target))
        partial = _beside(file)
        try:
            partial.write_bytes(content)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(target, f"cannot be written: {error.strerror}", _MEND) from error


def ready(target: Path) -> None:
    """See that what will be written after long work can be written; leave nothing.

    Raises
    ------
    BadInput
        The folder cannot be made or written, or the target is a folder.
    """
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        if target.is_dir():
            raise IsADirectoryError(0, "Is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.is_file():
            partial = _beside(Path(os.path.realpath(target)))
            partial.touch()
            partial.unlink()
    except OSError as error:
        raise BadInput(target, f"cannot be written: {error.strerror}", _MEND) from error
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def read_at_most(file: Path, most_bytes: int) -> bytes:
    """Read a file or pipe whole; a device that never ends is noticed before memory does.

    Raises
    ------
    BadInput
        It has more than `most_bytes` bytes.
    OSError
        It cannot be read.
    """
    with file.open("rb") as opened:
        content = opened.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise BadInput(file, f"larger than {most_bytes >> 20} MiB", "check the name")
    return content


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}")
