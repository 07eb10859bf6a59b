"""Files that may be pipes: what comes through one comes once, but is looked at before it is read."""

import stat
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, cast

from pagewalk.errors import BadInput
from pagewalk.trace.store.columns import regular_file

KEPT = 1 << 23
"""So many of a pipe's first bytes are kept for the next opening: enough to find out the format. Ours."""


class _Pipe:
    """An open pipe and, as long as they are few, all bytes that came through it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._seen: bytes | None = b""

    @property
    def seen(self) -> bytes | None:
        """All that came so far; None if it was more than is kept."""
        return self._seen

    def more(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        got = self._file.read(size)
        if self._seen is not None:
            self._seen = self._seen + got if len(self._seen) + len(got) <= KEPT else None
        return got


class _Opened(BufferedIOBase):
    """A pipe from its first byte on."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe, self._before, self._done = pipe, pipe.seen or b"", 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None and size > 0
        got = self._before[self._done : self._done + size] or self._pipe.more(size)
        self._done += len(got)
        return got

    def tell(self) -> int:
        return self._done

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Only ever asked for right after the first bytes, to go back to them."""
        assert offset == whence == 0 and self._pipe.seen is not None
        self._before, self._done = self._pipe.seen, 0
        return 0


_pipes: dict[Path, _Pipe] = {}


def is_pipe(path: Path) -> bool:
    """Whether what it names can be read only once."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def opened(path: Path) -> tuple[BinaryIO, Callable[[], int]]:
    """Open a file, or a pipe once more; and a function that tells how many bytes it has (a pipe: so far).

    Raises
    ------
    BadInput
        It is a folder or a device, or a pipe of which more was read than is kept.
    """
    if not is_pipe(path):
        size = regular_file(path)
        return path.open("rb"), lambda: size
    if path not in _pipes:
        _pipes[path] = _Pipe(path)
    if _pipes[path].seen is None:
        raise BadInput(path, "is a pipe, which can be read only once", "pagewalk trace convert it first")
    file = _Opened(_pipes[path])
    return cast(BinaryIO, file), file.tell
