"""Where a trace goes and when, and how far back: counts to draw pictures of."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagewalk.trace.trace import FETCH, Trace

BANDS = 10
"""Parts of the address axis at most; ours, as are the other figures here."""
BREAK_BYTES = 2 << 20
"""Nothing is left out of the axis where a smaller hole is."""
ROWS, COLUMNS = 360, 480
FEWEST_ROWS = 12
"""Of a band, however few pages it has."""


@dataclass(frozen=True)
class Band:
    """A part of the address axis.

    Attributes
    ----------
    start, end : int
        Addresses; `end` is exclusive.
    first_row, rows : int
        Which rows of the picture it has; row 0 is the lowest.
    """

    start: int
    end: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class Density:
    """Records by address and time, and how far back data accesses reach.

    Attributes
    ----------
    bands : tuple of Band
        Ascending. What lies between them has no record.
    count : ndarray of int64, shape (rows, COLUMNS)
        Records in each cell; columns are equal stretches of the trace.
    pages : ndarray of int64, shape (rows,)
        Distinct base pages in each row.
    band_of_page, records : ndarray of int64, shape (distinct,)
        Of each of `Trace.pages`: its band, and its records.
    depths : ndarray of int64, shape (distinct + 1,)
        ``depths[d]``: data accesses to a page since whose last one d other pages were accessed; the last item
        counts first ones. Of all CPUs together.
    """

    bands: tuple[Band, ...]
    count: NDArray[np.int64]
    pages: NDArray[np.int64]
    band_of_page: NDArray[np.int64]
    records: NDArray[np.int64]
    depths: NDArray[np.int64]


def density(trace: Trace, progress: Callable[[int], None] | None = None) -> Density:
    """Read a trace once and count.

    Parameters
    ----------
    trace : Trace
    progress : callable, optional
        Called with the number of records read since the last call.

    Raises
    ------
    BadInput
        If the trace turns out damaged.
    """
    from pagewalk.kernels.sizes.distances import make_stack, stack_distances

    page = trace.pages.astype(np.int64)
    bands, band_of_page = _bands(page, trace.page_shift)
    row_of_page = np.zeros(len(page), np.int64)
    for number, band in enumerate(bands):
        inside = band_of_page == number
        first, span = band.start >> trace.page_shift, (band.end - band.start) >> trace.page_shift
        row_of_page[inside] = band.first_row + (page[inside] - first) * band.rows // span
    rows = bands[-1].first_row + bands[-1].rows if bands else 0
    count = np.zeros(rows * COLUMNS, np.int64)
    records = np.zeros(len(page), np.int64)
    own = np.arange(len(page), dtype=np.int32)
    stack, depths = make_stack(max(len(page), 1)), np.zeros(len(page) + 1, np.int64)
    for chunk in trace.chunks("flags"):
        at = np.arange(chunk.start, chunk.start + len(chunk.page))
        column = at * COLUMNS // trace.accesses
        records += np.bincount(chunk.page, minlength=len(page))
        count += np.bincount(row_of_page[chunk.page] * COLUMNS + column, minlength=len(count))
        data = chunk.page if chunk.flags is None else chunk.page[chunk.flags & FETCH == 0]
        stack_distances(np.array(data, np.uint32), own, stack, depths)
        if progress is not None:
            progress(len(chunk.page))
    return Density(
        bands,
        count.reshape(rows, COLUMNS),
        np.bincount(row_of_page, minlength=rows),
        band_of_page,
        records,
        depths,
    )


def _bands(page: NDArray[np.int64], page_shift: int) -> tuple[tuple[Band, ...], NDArray[np.int64]]:
    """Break the address axis at its largest holes; the bands, and which one each page is in."""
    if not len(page):
        return (), np.zeros(0, np.int64)
    ordered = np.unique(page)
    hole = np.diff(ordered)
    widest = np.argsort(-hole, kind="stable")[: BANDS - 1]
    broken = np.sort(widest[hole[widest] > BREAK_BYTES >> page_shift])
    starts = ordered[np.append(0, broken + 1)]
    ends = ordered[np.append(broken, len(ordered) - 1)] + 1
    inside = np.diff(np.append(np.append(0, broken + 1), len(ordered)))
    weight = np.log2(1 + inside)
    wanted = np.maximum(FEWEST_ROWS, ROWS * weight / weight.sum()).astype(np.int64)
    rows = np.minimum(wanted, ends - starts).tolist()
    bands, row = [], 0
    for start, end, height in zip(starts.tolist(), ends.tolist(), rows, strict=True):
        bands.append(Band(start << page_shift, end << page_shift, row, height))
        row += height
    return tuple(bands), np.searchsorted(starts, page, "right") - 1
