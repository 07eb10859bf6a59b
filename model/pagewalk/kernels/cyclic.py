"""Rounds over the same pages in the same order, through sets under any policy."""

from pagewalk.kernels._jit import jit
from pagewalk.kernels.general.assoc import find, insert


@jit
def cyclic_misses(table, page_set, beside_set, beside_tag, order, warm, rounds):
    """Count the misses of some rounds, after others that only warm up.

    Parameters
    ----------
    table : ndarray of int64
        Sets as of `pagewalk.kernels.general.assoc.make`, as the first round finds them; changed.
    page_set : ndarray of int64, shape (pages,)
    beside_set, beside_tag : ndarray of int64, shape (n, pages)
        What a miss of the page brings in besides, before the page itself, in this order.
    order : ndarray of int64, shape (pages,)
    warm, rounds : int
    """
    misses = 0
    for number in range(warm + rounds):
        for page in order:
            if find(table, page_set[page], page):
                continue
            misses += number >= warm
            for n in range(len(beside_set)):
                if not find(table, beside_set[n, page], beside_tag[n, page]):
                    insert(table, beside_set[n, page], beside_tag[n, page])
            insert(table, page_set[page], page)
    return misses
