"""The two parts of synthetic traces that numpy is slow at: shuffling, and sampling by a table of shares."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import jit


@jit
def shuffle(order: NDArray[np.int64], end: int, draw: NDArray[np.int64]) -> None:
    """Fisher and Yates's shuffle of ``order[:end]``, from its end, for as many places as there are draws.

    A draw is uniform below 2**32; `end` is at most 2**31.
    """
    for i in range(len(draw)):
        last = end - 1 - i
        other = draw[i] * (last + 1) >> 32
        order[last], order[other] = order[other], order[last]


@jit
def ranks(
    draw: NDArray[np.int64],
    shift: int,
    share: NDArray[np.int64],
    guide: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Write to `out` how many entries of the ascending `share` are at most each draw, as a right bisection.

    The last share is above all draws. ``guide[i]`` is the answer for a draw of ``i << shift``, so that few
    shares are left to search.
    """
    for i in range(len(draw)):
        low, high = guide[draw[i] >> shift], guide[(draw[i] >> shift) + 1]
        while low < high:
            middle = (low + high) // 2
            if share[middle] <= draw[i]:
                low = middle + 1
            else:
                high = middle
        out[i] = low
