"""Synthetic traces: what their descriptions promise, whatever the chunk."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.errors import BadInput
from pagewalk.trace.open import open_trace
from pagewalk.trace.synth.generate import generated
from pagewalk.trace.synth.kinds import GAP, KINDS, VMALLOC_START, Chase, Mixed, Probes, Stride, Uniform, Zipf
from pagewalk.trace.synth.spec import extent, parse
from pagewalk.trace.trace import STORE

SMALL = {
    "uniform": "uniform?size=1M&accesses=200000",
    "zipf": "zipf?size=1M&accesses=200000",
    "sequential": "sequential?size=1M&accesses=200000",
    "stride": "stride?size=1M&accesses=200000",
    "chase": "chase?size=1M&accesses=200000",
    "probes": "probes?table=64K&heap=1M&accesses=200000",
    "mixed": "mixed?accesses=200000&part=1*zipf%3Fsize%3D1M&part=3*sequential&part=.5*chase%3Fsize%3D64K",
}


def offsets(text: str, size: int = 1 << 20) -> np.ndarray:
    """Every access of a trace, as bytes from its base."""
    kind = parse(text)
    address = np.concatenate([chunk.address for chunk in generated(kind).read(size)])
    assert len(address) == kind.accesses
    return (address - np.uint64(kind.base)).astype(np.int64)


def test_every_kind_is_tried_here():
    assert SMALL.keys() == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_the_chunk_changes_nothing(name):
    whole = offsets(SMALL[name])
    for size in (1, 999, 65_536, 70_001, 199_999):
        start = itertools.islice(generated(parse(SMALL[name])).read(size), -(-3000 // size))
        pieces = np.concatenate([chunk.address for chunk in start]) - np.uint64(VMALLOC_START)
        np.testing.assert_array_equal(pieces, whole[: len(pieces)])
    np.testing.assert_array_equal(offsets(SMALL[name], 70_001), whole)


@pytest.mark.parametrize("name", KINDS)
def test_seed_and_length(name):
    """The same seed gives the same; another another; more begins with less."""
    whole = offsets(SMALL[name])
    fewer = offsets(SMALL[name].replace("=200000", "=150001"))
    np.testing.assert_array_equal(whole[:150_001], fewer)
    other = offsets(SMALL[name] + "&seed=1")
    assert np.array_equal(whole, other) == (name in ("sequential", "stride"))


@pytest.mark.parametrize("name", KINDS)
def test_accesses_stay_inside(name):
    kind, found = parse(SMALL[name]), offsets(SMALL[name])
    assert found.min() >= 0
    assert found.max() < extent(kind)
    base = 0xFF91_0000_0020_0000
    (chunk,) = generated(parse(SMALL[name] + f"&base={base:#x}")).read(1 << 20)
    np.testing.assert_array_equal(chunk.address, found.astype(np.uint64) + np.uint64(base))


def chi_squared_is_plausible(counts: np.ndarray, share: np.ndarray) -> bool:
    """Within six standard deviations of what draws with these shares give."""
    expected = counts.sum() * share
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return abs(statistic - freedom) < 6 * math.sqrt(2 * freedom)


def test_uniform_is_uniform():
    found = offsets("uniform?size=8000&accesses=1e6")
    assert not (found % 8).any()
    assert chi_squared_is_plausible(np.bincount(found // 8, minlength=1000), np.full(1000, 1 / 1000))


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 1.7])
def test_zipf_is_zipf(exponent):
    found = offsets(f"zipf?size=1M&exponent={exponent}&accesses=1e6")
    counts = np.bincount(found >> 12, minlength=256)
    assert chi_squared_is_plausible(np.bincount((found & 4095) // 8, minlength=512), np.full(512, 1 / 512))
    if exponent == 0:
        assert chi_squared_is_plausible(counts, np.full(256, 1 / 256))
        return
    weight = np.arange(1, 257) ** -float(exponent)
    top = np.append(weight[:10], weight[10:].sum()) / weight.sum()
    hottest = np.argsort(-counts)
    assert chi_squared_is_plausible(np.append(counts[hottest[:10]], counts[hottest[10:]].sum()), top)
    assert np.abs(np.diff(hottest[:5])).min() > 1, "hot pages are scattered"


@pytest.mark.parametrize(
    ("size", "step"), [(4096, 8), (1000, 24), (1 << 21, 4160), (8, 1), (1 << 20, 1 << 40)]
)
def test_a_stride_is_a_multiplication(size, step):
    found = offsets(f"stride?size={size}&step={step}&accesses=150000")
    np.testing.assert_array_equal(found, [i * step % size for i in range(150_000)])
    np.testing.assert_array_equal(offsets(f"sequential?size={size}&step={step}&accesses=150000"), found)


def test_a_chase_is_one_cycle():
    found = offsets("chase?size=1M&node=64&accesses=40000")
    cycle = found[: 1 << 14]
    assert sorted(cycle) == list(range(0, 1 << 20, 64))
    np.testing.assert_array_equal(found[1 << 14 : 1 << 15], cycle)
    assert np.count_nonzero(np.diff(cycle) == 64) < 10, "in no order"


def test_probes_are_lookups():
    found = offsets("probes?table=64K&heap=1M&hot_size=4K&hot=3&chain=2&accesses=600000").reshape(-1, 6)
    heap, hot = 2 * GAP, 4 * GAP
    assert ((found[:, :3] >= hot) & (found[:, :3] < hot + 4096)).all()
    bucket = found[:, 3]
    assert chi_squared_is_plausible(np.bincount(bucket // 8, minlength=8192), np.full(8192, 1 / 8192))
    chain = found[:, 4:]
    assert ((chain >= heap) & (chain < heap + (1 << 20))).all()
    assert not ((chain - heap) % 64).any()
    chains = {(int(b), *map(int, c)) for b, c in zip(bucket, chain, strict=True)}
    assert len(chains) == len(set(bucket.tolist())) == 8192, "a bucket has one chain"
    nodes = np.bincount((np.array([c[1:] for c in chains]).ravel() - heap) >> 16, minlength=16)
    assert chi_squared_is_plausible(nodes, np.full(16, 1 / 16))


def test_a_mixture_has_its_parts_in_order():
    text = "mixed?accesses=300000&part=2*sequential%3Fsize%3D1M&part=1*stride%3Fsize%3D1M%26step%3D4096"
    found = offsets(text)
    second = 2 * GAP
    first = found < second
    share = first.mean()
    assert abs(share - 2 / 3) < 6 * math.sqrt(2 / 9 / 300_000)
    np.testing.assert_array_equal(found[first], np.arange(first.sum()) * 8 % (1 << 20))
    np.testing.assert_array_equal(found[~first] - second, np.arange((~first).sum()) * 4096 % (1 << 20))


def test_parts_of_one_kind_differ():
    found = offsets("mixed?accesses=1000&part=1*uniform%3Fsize%3D1M&part=1*uniform%3Fsize%3D1M")
    one, two = found[found < GAP], found[found >= GAP] - 2 * GAP
    assert not np.array_equal(one[:100], two[:100])


def test_stores_are_a_share():
    trace = open_trace("synth:uniform?accesses=100000&stores=0.3")
    assert trace.columns == {"offset", "flags"}
    flags = np.concatenate([chunk.flags for chunk in trace.chunks("flags", size=7777)])
    assert set(flags.tolist()) == {3, 3 | STORE}
    assert abs((flags == 3 | STORE).mean() - 0.3) < 6 * math.sqrt(0.21 / 100_000)
    assert open_trace("synth:uniform?accesses=100").columns == {"offset"}
    whole = next(trace.chunks("flags")).flags
    np.testing.assert_array_equal(flags, whole)


def test_the_first_accesses_stay_what_they_are():
    """Published figures rest on them: words that numpy promises never to change (NEP 19)."""
    words = np.random.PCG64(np.random.SeedSequence(0, spawn_key=(0,))).random_raw(3)
    assert int(words[0]) == 0xF1645AFFCD5F76EE
    expected = [(int(word) >> 11) * (256 * 2**20 // 8) // 2**53 * 8 for word in words]
    assert offsets("uniform?accesses=3").tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([Uniform, Zipf, Stride, Chase, Probes]),
    seed=st.integers(0, 2**63 - 1),
    accesses=st.integers(1, 100),
    base=st.integers(0, 1 << 63),
    stores=st.floats(0, 1),
)
def test_a_description_is_its_name(kind, seed, accesses, base, stores):
    """What ``trace info`` shows as the workload opens the same trace again."""
    small = {"table": 4096, "heap": 4096} if kind is Probes else {"size": 8192}
    raw = generated(kind(seed=seed, accesses=accesses, base=base, stores=stores, **small))
    again = open_trace(raw.about["workload"])
    assert again.digest() == raw.digest()
    (chunk,), (expected,) = again.chunks("offset", "flags"), raw.read(1000)
    np.testing.assert_array_equal(again.pages[chunk.page] << np.uint64(12) | chunk.offset, expected.address)


def test_the_digest_tells_descriptions_apart():
    texts = ["uniform", "uniform?seed=1", "uniform?size=1M", "stride", "sequential", "uniform?stores=1"]
    assert len({generated(parse(text)).digest() for text in texts}) == len(texts)
    for one, other in (("size=1M", "size=0x100000"), ("accesses=1e6", "accesses=1000000"), ("seed=0", "")):
        same = [generated(parse(f"uniform?{text}".rstrip("?"))).digest() for text in (one, other)]
        assert same[0] == same[1]


WRONG = [
    ("", "no such kind"),
    ("gauss", "there are: uniform, zipf"),
    ("uniform?length=3", "no such field"),
    ("uniform?size=3", ">= 8"),
    ("uniform?size=-8", ">= 8"),
    ("uniform?size=1e9", "no number; write a size, such as 64M"),
    ("uniform?size=64X", "no number"),
    ("uniform?size=" + "9" * 5000, "no number"),
    ("uniform?size=99999999999T", "<="),
    ("uniform?accesses=0", ">= 1"),
    ("uniform?accesses=1.5e0", "no number"),
    ("uniform?accesses=1e30", "<="),
    ("uniform?seed=-1", ">= 0"),
    ("uniform?seed=a", "no number"),
    ("uniform?stores=2", "<= 1"),
    ("uniform?stores=nan", "no number"),
    ("uniform?stores=inf", "no number"),
    ("uniform?base=0xfffffffffff00000", "above the highest address"),
    ("uniform?base=0x10000000000000000", "above the highest address"),
    ("uniform?base=here", "an address, such as 0xffff"),
    ("uniform?size=1M&size=2M", "given twice"),
    ("uniform?size", "bad query field"),
    ("uniform?&&&", "bad query field"),
    ("uniform?" + "&".join(["seed=1"] * 200), "fields"),
    ("zipf?size=100", ">= 4096"),
    ("zipf?exponent=9", "<= 8"),
    ("zipf?exponent=-1", ">= 0"),
    ("zipf?size=1024T", "<="),
    ("chase?size=512G&node=8", "nodes, not 1 to 2^28"),
    ("chase?size=64&node=128", "0 nodes"),
    ("probes?chain=9999", "<= 1024"),
    ("mixed?part=uniform", "no weight above 0"),
    ("mixed?part=0*uniform", "no weight above 0"),
    ("mixed?part=-1*uniform", "no weight above 0"),
    ("mixed?part=nan*uniform", "no weight above 0"),
    ("mixed?part=1*", "no such kind"),
    ("mixed?part=1*mixed", "mixed itself"),
    ("mixed?part=1*uniform%3Fseed%3D4", "belong to the whole"),
    ("mixed?" + "&".join(["part=1*uniform"] * 65), "<= 64"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "what"), WRONG)
def test_a_wrong_description_is_one_line(text, what):
    with pytest.raises(BadInput) as caught:
        open_trace(f"synth:{text}")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_can_be_made():
    for name, kind in KINDS.items():
        assert parse(name) == kind()
        assert kind().base % GAP == 0
    assert parse("mixed") == Mixed()
