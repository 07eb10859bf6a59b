"""What each release decides, against the reference's sections 3.1 to 3.5, 6 and its live facts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.errors import BadInput
from pagewalk.linux.rules.callers import CALLERS, NEVER, asks
from pagewalk.linux.rules.eligibility import Kernel, Request, decide, ioremap_align, ioremap_limit, leaves
from pagewalk.linux.rules.hooks import ARCHES, hooks
from pagewalk.linux.rules.releases import BOUNDARIES, RULES, release

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PMD = 2 * MIB


def kernel(name, arch="x86-64", nodes=1, *parameters, ram=0):
    return Kernel(release(name), hooks(arch), nodes, ram, frozenset(parameters))


def first(request, kernel_):
    return decide(request, kernel_).attempts[0]


def is_huge(request, kernel_):
    return first(request, kernel_).shift == 21


@pytest.mark.parametrize(
    ("text", "is_"),
    [
        ("6.12", "6.12"),
        ("6.1.0-56-amd64", "6.1"),
        ("Linux version 6.18.44 (gcc 12.2.0)", "6.18"),
        ("v7.3-rc4", "7.3"),
        ("v8", "v8"),
    ],
)
def test_release_names(text, is_):
    assert release(text).name == is_


@pytest.mark.parametrize("text", ["", "six", "6", "v", "6.", "123.4", "6.1234", "nan.nan", "5.99", "6.20"])
def test_no_release(text):
    with pytest.raises(BadInput):
        release(text)


def test_order_of_releases():
    names = ["5.10", "5.12", "v8", "5.13", "5.18", "6.1", "6.9", "6.12", "7.2", "7.10"]
    assert sorted(names, key=release) == names
    assert list(BOUNDARIES) == sorted(BOUNDARIES, key=release)


# reference section 3.1, one row each: (release, the flag that lets it, does a plain call get huge?)
RADIX = "powerpc64-radix-4k"


@pytest.mark.parametrize(
    ("name", "plain", "opted_out", "opted_in"),
    [
        ("5.10", False, False, False),
        ("v8", True, True, True),
        ("5.13", True, False, True),
        ("5.14", True, False, True),
        ("5.17", True, False, True),
        ("5.18", False, False, True),
        ("6.12", False, False, True),
        ("6.13", False, False, True),
        ("7.3", False, False, True),
    ],
)
def test_who_may(name, plain, opted_out, opted_in):
    k = kernel(name, RADIX)
    assert is_huge(Request(PMD), k) is plain
    assert is_huge(Request(PMD, no_huge=True), k) is opted_out
    assert is_huge(Request(PMD, allow_huge=True), k) is opted_in
    assert not is_huge(Request(PMD, allow_huge=True), kernel(name, RADIX, 1, "nohugevmalloc"))
    assert not is_huge(Request(PMD - 1, allow_huge=True), k)


def test_only_v8_compares_the_protection():
    for name in BOUNDARIES:
        request = Request(PMD, allow_huge=True, protection="PAGE_KERNEL_EXEC")
        assert is_huge(request, kernel(name, RADIX)) == (name != "v8")


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("name", ["v8", "5.13", "5.18", "6.1", "6.12", "6.13", "7.3"])
def test_division_by_nodes_until_6_12(name, nodes):
    needed = PMD * nodes if release(name) < release("6.13") else PMD
    k = kernel(name, RADIX, nodes)
    assert is_huge(Request(needed, allow_huge=True), k)
    assert not is_huge(Request(needed - 1, allow_huge=True), k)
    assert is_huge(Request(PMD, allow_huge=True, node=0), k)


@pytest.mark.parametrize(
    ("arch", "since"),
    [("powerpc64-radix-64k", "v8"), ("x86-64", "5.18"), ("arm64-4k", "6.1"), ("riscv-sv48", "6.2")],
)
def test_since_when_each_architecture(arch, since):
    for name in BOUNDARIES:
        assert is_huge(Request(PMD, allow_huge=True), kernel(name, arch)) == (release(name) >= release(since))


@pytest.mark.parametrize("arch", ["s390", "loongarch64-16k", "powerpc64-hash-64k"])
def test_architectures_without_it(arch):
    assert all(first(Request(GIB, allow_huge=True), kernel(n, arch)).shift == hooks(arch).base_shift
               for n in BOUNDARIES)  # fmt: skip


def test_live_rounding_of_6_18():
    """Fact 5: 4, 8, 16 MiB + 64 B took 6, 10, 18 MiB; fact 6: the guard puts 10 MiB areas 12 MiB apart."""
    k = kernel("6.18")
    for asked, took in ((4, 6), (8, 10), (16, 18)):
        attempt = first(Request(asked * MIB + 64, allow_huge=True), k)
        assert (attempt.area_bytes, attempt.align_bytes) == (took * MIB, PMD)
        assert attempt.span_bytes == took * MIB + 4096
    pitch = -(-(10 * MIB + 4096) // PMD) * PMD
    assert pitch == 12 * MIB


def test_live_sample_futex_area():
    """The futex table of the vmallocinfo sample: 10,489,856 bytes with guard, 2560 pages, of 8 MiB + 64 B."""
    attempt = first(Request(8 * MIB + 64, allow_huge=True), kernel("6.18"))
    assert (attempt.span_bytes, attempt.area_bytes // 4096) == (10_489_856, 2560)


def test_fallback_is_what_was_asked_for():
    decision = decide(Request(5 * MIB + 1, align_bytes=64 * KIB, allow_huge=True), kernel("6.12"))
    large, base = decision.attempts
    assert (large.shift, large.align_bytes, large.area_bytes) == (21, PMD, 6 * MIB)
    assert (base.shift, base.align_bytes, base.area_bytes) == (12, 64 * KIB, 5 * MIB + 4096)


def test_alignment_above_a_leaf_stays():
    assert first(Request(PMD, align_bytes=8 * MIB, allow_huge=True), kernel("6.12")).align_bytes == 8 * MIB


def test_no_guard():
    assert first(Request(4096, guard=False), kernel("6.12")).span_bytes == 4096


@pytest.mark.parametrize(
    ("size", "name", "shift", "area"),
    [
        (100 * KIB, "6.16", 16, 128 * KIB),  # reference section 6, last line
        (100 * KIB, "6.15", 12, 100 * KIB),
        (64 * KIB - 1, "6.16", 12, 64 * KIB),
        (PMD, "6.16", 21, PMD),
    ],
)
def test_contiguous_ptes_of_arm64(size, name, shift, area):
    attempt = first(Request(size, allow_huge=True), kernel(name, "arm64-4k"))
    assert (attempt.shift, attempt.area_bytes) == (shift, area)


def test_64k_pages_of_arm64_need_half_a_gib_for_a_pmd():
    k = kernel("6.16", "arm64-64k")
    assert first(Request(PMD, allow_huge=True), k).shift == 21  # 32 contiguous PTEs
    assert first(Request(512 * MIB, allow_huge=True), k).shift == 29
    assert first(Request(PMD, allow_huge=True), kernel("6.15", "arm64-64k")).shift == 16


@pytest.mark.parametrize(
    ("size", "shift"), [(16 * KIB - 1, 12), (16 * KIB, 14), (512 * KIB - 1, 14), (512 * KIB, 19), (GIB, 19)]
)
def test_powerpc_8xx(size, shift):
    assert first(Request(size, allow_huge=True), kernel("6.12", "powerpc-8xx-4k")).shift == shift


def test_pte_sizes_are_of_the_share_of_a_node():
    k = kernel("5.14", "powerpc-8xx-4k", 2)
    assert first(Request(31 * KIB), k).shift == 12
    assert first(Request(32 * KIB), k).shift == 14


def test_refused():
    assert decide(Request(0), kernel("6.12")).attempts == ()
    assert decide(Request(GIB + 1), kernel("6.12", ram=GIB)).attempts == ()
    assert decide(Request(GIB), kernel("6.12", ram=GIB)).attempts


@pytest.mark.parametrize(
    ("request_", "k", "says"),
    [
        (Request(PMD, allow_huge=True), kernel("6.12", "x86-64", 4), "524288 bytes for each of 4 nodes"),
        (Request(PMD, allow_huge=True), kernel("6.12", "x86-64", 1, "nohugevmalloc"), "nohugevmalloc"),
        (Request(PMD), kernel("6.12"), "VM_ALLOW_HUGE_VMAP"),
        (Request(PMD, allow_huge=True), kernel("5.13"), "5.13 has no huge vmalloc on x86-64"),
        (Request(PMD, allow_huge=True), kernel("6.12"), ""),
    ],
)
def test_why(request_, k, says):
    why = decide(request_, k).why
    assert says in why if says else why == ""


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 40 * MIB),
    st.sampled_from(BOUNDARIES),
    st.sampled_from(sorted(ARCHES)),
    st.integers(1, 8),
    st.booleans(),
)
def test_attempts_hold_what_was_asked_for(size, name, arch, nodes, allow):
    k = kernel(name, arch, nodes)
    attempts = decide(Request(size, allow_huge=allow), k).attempts
    assert [a.shift for a in attempts] == sorted({a.shift for a in attempts}, reverse=True)
    assert attempts[-1].shift == k.arch.base_shift
    for attempt in attempts:
        assert 0 <= attempt.area_bytes - size < 1 << attempt.shift
        assert attempt.area_bytes % (1 << attempt.shift) == 0
        assert attempt.span_bytes - attempt.area_bytes == k.base_bytes


def test_leaves_of_a_device():
    """Reference 3.3: 1 GiB where both addresses allow, smaller leaves at the ragged ends."""
    k = kernel("6.12")
    got = leaves(GIB - 3 * MIB, 5 * GIB - 3 * MIB, GIB + 4 * MIB, ioremap_limit(k), k)
    assert got == [12] * 256 + [21] + [30] + [12] * 256
    assert leaves(GIB, 5 * GIB + 4096, PMD, 30, k) == [12] * 512
    assert set(leaves(GIB, GIB, 2 * PMD, k.arch.base_shift, k)) == {12}  # vmap
    assert ioremap_limit(kernel("6.12", "x86-64", 1, "nohugeiomap")) == 12
    assert ioremap_limit(kernel("6.12", "riscv-sv39")) == 21  # its PUD hook wants four levels
    assert ioremap_limit(kernel("6.12", "riscv-sv48")) == 30
    assert ioremap_limit(kernel("6.12", "arm64-64k")) == 29


def test_neighbouring_blocks_do_not_join():
    """vmalloc maps block by block: two contiguous 64 KiB blocks stay two leaves."""
    k = kernel("6.16", "arm64-4k")
    assert leaves(0, 0, 128 * KIB, 16, k) == [16, 16]
    assert set(leaves(0, 0, 128 * KIB, 16, kernel("6.15", "arm64-4k"))) == {12}


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.integers(1, 3000),
    st.sampled_from(["x86-64", "arm64-4k", "arm64-16k"]),
)
def test_leaves_are_the_largest_that_fit(virtual, physical, pages, arch):
    k = kernel("7.3", arch)
    base, limit = k.base_bytes, ioremap_limit(k)
    sizes = {k.arch.base_shift, *k.arch.pte_shifts, k.arch.pmd_shift}
    at = virtual * base
    end = at + pages * base
    delta = (physical - virtual) * base
    for shift in leaves(at, physical * base, pages * base, limit, k):
        fitting = [
            s for s in sizes if at % (1 << s) == 0 and (at + delta) % (1 << s) == 0 and at + (1 << s) <= end
        ]
        assert shift == max(fitting)
        at += 1 << shift
    assert at == end


@pytest.mark.parametrize(
    ("size", "arch", "align"),
    [
        (4096, "x86-64", 4096),
        (4097, "x86-64", 8192),
        (3 * MIB, "x86-64", 4 * MIB),
        (3 * GIB, "x86-64", GIB),
        (3 * GIB, "arm64-4k", GIB),
        (3 * GIB, "arm64-16k", 32 * MIB),
        (3 * GIB, "s390", 128 * 4096),
    ],
)
def test_ioremap_alignment(size, arch, align):
    assert ioremap_align(size, hooks(arch)) == align


def test_unknown_architecture():
    with pytest.raises(BadInput, match="x86-64"):
        hooks("vax")


def test_every_rule_has_a_source_and_a_life():
    keys = [rule.key for rule in RULES]
    assert len(set(keys)) == len(keys)
    for rule in RULES:
        assert rule.source
        assert rule.what
        assert not rule.until or release(rule.since) < release(rule.until)
        assert rule.holds_in(release(rule.since))
        assert not rule.until or not rule.holds_in(release(rule.until))
    for row in ARCHES.values():
        assert row.source


def test_callers():
    """Section 3.2: 6.1 has only boot hashes, per-netns established tables and the kvmalloc family."""
    assert {c.what for c in CALLERS if release(c.since) <= release("6.1")} == {
        "large boot hash tables",
        "kvmalloc family",
        "TCP established table of a network namespace",
    }
    assert asks("alloc_large_system_hash", release("6.1")) is True
    assert asks("futex_hash_allocate", release("6.1")) is False
    assert asks("futex_hash_allocate", release("6.12")) is None  # between the trees that were read
    assert asks("futex_hash_allocate", release("6.18")) is True
    assert asks("pcpu_create_chunk", release("7.3")) is False
    assert asks("somebody_new", release("7.3")) is None
    assert asks("alloc_large_system_hash", release("5.10")) is False
    assert asks("htab_map_alloc", release("5.13")) is None  # opt-out: everyone who does not refuse
    assert not set(NEVER) & {symbol for c in CALLERS for symbol in c.symbols}
