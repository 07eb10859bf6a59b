"""Loops to be timed on the machine itself: chains of loads, and of multiplications, that no core can shorten.

Indices are unsigned, so that no instruction looks for negative ones between one load and the next.
"""

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import jit


@jit
def follow(link: NDArray[np.uint64], start: np.uint64, steps: int) -> np.uint64:
    """Go from node to node: `link[node]` is the next one. Return where that ends."""
    node = start
    for _ in range(steps):
        node = link[node]
    return node


@jit
def follow_all(link: NDArray[np.uint64], nodes: NDArray[np.uint64], steps: int) -> None:
    """Go `steps` steps with each of several nodes in turn, in place."""
    for _ in range(steps):
        for chain in range(len(nodes)):
            nodes[chain] = link[nodes[chain]]


@jit
def square(number: np.uint64, steps: int) -> np.uint64:
    """Square a number again and again, each product from the one before."""
    for _ in range(steps):
        number = number * number
    return number
