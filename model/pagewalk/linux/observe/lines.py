"""Lines of a text file that somebody gave us."""

from collections.abc import Iterator
from pathlib import Path

from pagewalk.errors import BadInput

LONGEST = 1 << 16
"""No format that is read here has lines of more bytes."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end); bytes that are no UTF-8 are replaced.

    Raises
    ------
    BadInput
        The file cannot be read, or is no text.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST):
                number += 1
                if b"\0" in line or len(line) == LONGEST:
                    raise BadInput(
                        f"{path}: line {number}", "not a text file", "give the text that was saved"
                    )
                yield number, line.decode(errors="replace").rstrip()
    except OSError as error:
        raise BadInput(path, error.strerror or "cannot be read", "check the file") from None
