"""What can be wrong with what we were given.

BadInput                an input file or argument cannot be used
"""


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
