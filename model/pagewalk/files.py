"""Write a file whole or not at all."""

import os
from pathlib import Path

from pagewalk.errors import BadInput


def write_whole(target: Path, content: bytes) -> None:
    """Write under a temporary name beside the target, then rename.

    Raises
    ------
    BadInput
        The folder cannot be made or written; nothing is left behind.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(target, f"cannot be written: {error.strerror}", "name another folder") from error
