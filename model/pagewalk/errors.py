"""What can be wrong with what we were given, and what may have been meant."""

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """An input cannot be used; printed as one line, exit status 2.

    Parameters
    ----------
    where : str
        File (and place in it: a key, a line, a byte offset) or argument.
    what : str
        What is wrong with it.
    mend : str
        What the user can do about it.
    """

    def __init__(self, where: object, what: str, mend: str = "") -> None:
        self.where, self.what, self.mend = str(where), what, mend
        line = f"{where}: {what}" + (f"; {mend}" if mend else "")
        super().__init__(" ".join(line.split()))


def meant(word: str, known: Iterable[str]) -> str:
    """Give the known name that comes nearest to an unknown one, as a mend.

    Parameters
    ----------
    word : str
        What was written: the beginning of a name, three letters or more of its middle, or a slip of the pen.
    known : iterable of str

    Returns
    -------
    str
        "did you mean NAME?"; "" where nothing comes near.
    """
    said, names = word[:80].casefold(), list(known)
    holding = [name for name in names if said and name.startswith(said)]
    holding = holding or [name for name in names if len(said) > 2 and said in name]
    near = difflib.get_close_matches(said, holding or names, 1, 0 if holding else 0.6)
    return f"did you mean {near[0]}?" if near else ""
