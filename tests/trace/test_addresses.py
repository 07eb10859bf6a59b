"""Pages numbered by first appearance, against a dict."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.kernels.trace.addresses import make_numbers, number_pages, with_more_room

HIGHEST = (1 << 52) - 1
PAGES = st.one_of(
    st.integers(0, HIGHEST),
    st.integers(0xFFFFC90000000, 0xFFFFC90000000 + 80),
    st.integers(0, 30).map(lambda n: n << 40),
    st.sampled_from([0, HIGHEST]),
)


def numbered(address, numbers):
    """Numbers of all addresses, and the dictionary, grown as often as it asks."""
    out = np.full(len(address), 1 << 30, np.uint32)
    done = 0
    while True:
        done += number_pages(address[done:], numbers, out[done:])
        if done == len(address):
            return out.tolist(), numbers
        numbers = with_more_room(numbers)


def plainly(pages):
    seen = {}
    return [seen.setdefault(page, len(seen)) for page in pages], list(seen)


def addresses(pages, offsets):
    return (np.array(pages, np.uint64) << np.uint64(12) | np.array(offsets, np.uint64)).view(np.int64)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(PAGES, st.integers(1, 150)), max_size=30), st.integers(0, 400))
def test_pages_are_numbered_as_they_appear(runs, cut):
    pages = [page for page, length in runs for _ in range(length)]
    address = addresses(pages, np.arange(len(pages)) * 37 % 4096)
    first, numbers = numbered(address[:cut], make_numbers(64, 64))
    second, numbers = numbered(address[cut:], numbers)
    expected, distinct = plainly(pages)
    assert first + second == expected
    assert numbers.page[: numbers.used[0]].tolist() == distinct


@pytest.mark.parametrize("apart", [1, 32, 512, 1 << 18, 1 << 26, 1 << 35], ids="apart by {}".format)
def test_it_grows_and_finds_all_again(apart):
    pages = np.random.default_rng(apart).permutation(20_000) * apart % (1 << 52)
    distinct = list(dict.fromkeys(pages.tolist()))
    address = addresses(pages, 0 * pages)
    _, numbers = numbered(address, make_numbers(64, 64))
    again, numbers = numbered(addresses(distinct, [4095] * len(distinct)), numbers)
    assert again == list(range(len(distinct)))
    assert numbers.page[: numbers.used[0]].tolist() == distinct


def test_uncompiled_the_same():
    script = """if True:
        import numpy as np
        import test_addresses as t
        pages = np.repeat(np.random.default_rng(2).integers(0, 400, 40), 30) + 0xFFFFC90000000
        found, numbers = t.numbered(t.addresses(pages, pages % 4096), t.make_numbers(64, 64))
        print(found == t.plainly(pages.tolist())[0])
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
