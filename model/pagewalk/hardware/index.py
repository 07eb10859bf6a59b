"""Which set of an array an entry lies in: the index expressions of machine files.

Grammar (bits are of the entry's page number: address >> log2 of the entry's size):

    expression = term ("^" term)*           all terms equally wide
    term       = "VPN[" bit "]"             one bit
               | "VPN[" high ":" low "]"    several
               | "{" expression ("," expression)* "}"    concatenation, the first is the highest

so Skylake's STLB is ``VPN[6:0] ^ VPN[13:7]`` and the L2 DTLB of Zen 3 ``{VPN[9], VPN[6:0]}``.
"""

import re
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

HIGHEST_BIT = 51
"""Page numbers have at most 52 bits (64-bit addresses, 4 KiB pages)."""

LONGEST = 200
"""Characters in an expression; bounds the depth of the parser too."""

_TOKEN = re.compile(r"\s*(VPN\[\s*(\d{1,3})\s*(?::\s*(\d{1,3})\s*)?\]|[\^{},])")


@dataclass(frozen=True)
class Bits:
    """Page-number bits `high` down to `low`."""

    high: int
    low: int


@dataclass(frozen=True)
class Xor:
    """Exclusive or of equally wide terms."""

    terms: tuple["Term", ...]


@dataclass(frozen=True)
class Concat:
    """Terms side by side, the first in the highest bits."""

    terms: tuple["Term", ...]


Term = Bits | Xor | Concat


def width(term: Term) -> int:
    """Bits that a term yields."""
    if isinstance(term, Bits):
        return term.high - term.low + 1
    if isinstance(term, Xor):
        return width(term.terms[0])
    return sum(width(part) for part in term.terms)


def parse(expression: str) -> Term:
    """Read an expression.

    Raises
    ------
    ValueError
        With what is wrong and where, for the caller to name the file and key.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"the index expression is longer than {LONGEST} characters")
    parser = _Parser(expression)
    term = parser.expression()
    if parser.position != len(expression.rstrip()):
        parser.fail("the end, ^ or ,")
    return term


class _Parser:
    """Recursive descent over the grammar above."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def fail(self, wanted: str) -> NoReturn:
        raise ValueError(
            f"index expression {self.text!r}: expected {wanted} at character {self.position + 1}"
        )

    def take(self, symbols: str) -> str:
        """Consume the next token if it is one of the symbols; "V" stands for VPN[...]."""
        found = _TOKEN.match(self.text, self.position)
        if not found or found[1][0] not in symbols:
            return ""
        self.position = found.end()
        return found[1]

    def expression(self) -> Term:
        terms = [self.term()]
        while self.take("^"):
            terms.append(self.term())
            if width(terms[-1]) != width(terms[0]):
                raise ValueError(
                    f"index expression {self.text!r}: ^ of {width(terms[0])} and {width(terms[-1])} bits"
                )
        return terms[0] if len(terms) == 1 else Xor(tuple(terms))

    def term(self) -> Term:
        if bits := self.take("V"):
            found = _TOKEN.match(bits)
            assert found
            high = int(found[2])
            low = int(found[3] or high)
            if not low <= high <= HIGHEST_BIT:
                raise ValueError(
                    f"index expression {self.text!r}: {bits} is not [high:low] within bits {HIGHEST_BIT} to 0"
                )
            return Bits(high, low)
        if not self.take("{"):
            self.fail("VPN[...] or {")
        terms = [self.expression()]
        while self.take(","):
            terms.append(self.expression())
        if not self.take("}"):
            self.fail("^, , or }")
        return Concat(tuple(terms))


def evaluate(expression: str, page_number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Value of an expression for each page number.

    Parameters
    ----------
    expression : str
        In the grammar above.
    page_number : ndarray of int64
        address >> log2 of the entry's size; not negative.

    Returns
    -------
    ndarray of int64, of the same shape
    """
    return _value(parse(expression), page_number)


def _value(term: Term, page_number: NDArray[np.int64]) -> NDArray[np.int64]:
    if isinstance(term, Bits):
        return (page_number >> term.low) & ((1 << width(term)) - 1)
    value = _value(term.terms[0], page_number)
    for part in term.terms[1:]:
        beside = _value(part, page_number)
        value = value ^ beside if isinstance(term, Xor) else (value << width(part)) | beside
    return value


def set_index(expression: str, page_number: NDArray[np.int64], sets: int) -> NDArray[np.int64]:
    """Set of each entry in an array of `sets` sets.

    Parameters
    ----------
    expression : str
        "modulo", for any number of sets, or an expression that yields log2(sets) bits.
    page_number : ndarray of int64
        address >> log2 of the entry's size; not negative.
    sets : int

    Returns
    -------
    ndarray of int64, of the same shape
        In [0, sets).
    """
    if expression == "modulo":
        return page_number % sets
    return evaluate(expression, page_number)
