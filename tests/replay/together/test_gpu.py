"""Second levels on a GPU count what the processor counts; without one, its kernel runs thread by thread."""

import csv
from functools import lru_cache, partial
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner
from numba import cuda, types

import ptx
import warps
from pagewalk.cli.doctor import doctor
from pagewalk.cli.studies.sweep import sweep as command
from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.hardware.machine import Psc, Walker
from pagewalk.kernels.gpu import device, second
from pagewalk.replay.engine import replay
from pagewalk.replay.together import gpu as module
from pagewalk.replay.together.gpu import Gpu, find_gpu
from pagewalk.replay.together.together import Counted, together
from pagewalk.study.replays import subject
from pagewalk.study.sweep import run as sweeps
from pagewalk.study.sweep.batch import batches
from pagewalk.study.sweep.grid import cells, changed, read
from pagewalk.trace.trace import FETCH, STORE, from_pages
from strategies import VMALLOC, machine, mapping, tlb

FORMS = [(narrow, near) for narrow in (True, False) for near in (True, False)]
"""Units in 16 bits or 32; rows in shared memory or not."""


def plain_counts(unit, set_of, kind_of, walk_from, walks, kinds):
    """Lists instead of lanes: a second level of 1 to 32 ways in each table, each with walk caches of its own.

    `walks` has ways, and set and entry of each unit, of each walk cache. Returns depths and passed as the
    kernel counts them.
    """
    depths = np.zeros((len(set_of), kinds * 33), int)
    passed = np.zeros((len(set_of), kinds, len(walks), 32), int)
    for table, sets in enumerate(set_of.tolist()):
        stacks, caches = {}, {}
        for u in unit.tolist():
            stack = stacks.setdefault(sets[u], [])
            depth = min(stack.index(u), 32) if u in stack else 32
            depths[table, kind_of[u] * 33 + depth] += 1
            stacks[sets[u]] = [u, *(other for other in stack if other != u)]
            for lane in range(depth):
                for cache in range(walk_from[u], len(walks)):
                    ways, walk_set, entry = walks[cache]
                    held = caches.setdefault((lane, cache, walk_set[u]), [])
                    found = entry[u] in held
                    if found:
                        held.remove(entry[u])
                    else:
                        passed[table, kind_of[u], cache, lane] += 1
                    held.insert(0, entry[u])
                    del held[ways:]
                    if found:
                        break
    return depths, passed.reshape(len(set_of), -1)


def as_written(narrow, near):
    return partial(warps.launch, second.second_levels(narrow, near))


@lru_cache
def as_compiled(narrow, near):
    """What NVIDIA's compiler makes of the kernel for an H100; needs numba-cuda[cu12], no GPU."""
    if find_spec("numba_cuda") is None:
        pytest.skip("needs numba-cuda")

    def array(dtype, dimensions):
        return types.Array(dtype, dimensions, "C")

    one, row = array(types.int32, 1), array(types.uint16 if narrow else types.uint32, 1)
    byte, counter = array(types.int8, 1), array(types.int64, 2)
    some = (
        one,
        one,
        one,
        one,
        array(types.uint16, 2),
        byte,
        byte,
        array(types.uint32, 2),
        types.uint32,
        one,
        one,
    )
    signature = *some, row, array(types.uint16, 2), counter, counter
    try:
        text, _ = cuda.compile_ptx(second.second_levels(narrow, near).py_func, signature, cc=(9, 0))
    except Exception as error:
        if "NVVM" in str(error):
            pytest.skip(str(error))
        raise
    return partial(ptx.launch, ptx.translate(text))


@pytest.mark.parametrize("how", [as_written, as_compiled])
@pytest.mark.parametrize(("narrow", "near"), FORMS)
@pytest.mark.parametrize("shapes", [[], [(4, 2)], [(2, 3), (4, 1)]], ids=["none", "one", "two"])
def test_the_kernel_counts_what_lists_count(how, narrow, near, shapes):
    """Whatever the order of warps and of lanes; state is kept from launch to launch."""
    launch = how(narrow, near)
    rng, units, threads = np.random.default_rng(len(shapes)), 300, 64
    unit = (units * rng.random(300) ** 2).astype(np.int32)
    sets = np.array([1, 3, 8], np.int32)
    set_of = (np.arange(units) % sets[:, None]).astype(np.uint16)
    kind_of = (np.arange(units) // 7 % 2).astype(np.int8)
    walk_from = np.minimum(kind_of, len(shapes)).astype(np.int8)
    entry = [np.arange(units) // (8 << 2 * cache) for cache in range(len(shapes))]
    walks = [(ways, key % of, key // of) for key, (ways, of) in zip(entry, shapes, strict=True)]
    columns = [
        np.array(column).reshape(-1, units) for column in zip(*((s, k) for _, s, k in walks), strict=True)
    ]
    word = device.walk_words(kind_of, *(columns or [np.zeros((1, units), int)] * 2))
    walk_rows = [ways * of for ways, of in shapes]
    dtype, none = (np.uint16, second.NONE) if narrow else (np.uint32, second.ALL)
    rows = np.full(sets.sum() * 32, none, dtype)
    held = np.full((3, max(1, sum(walk_rows)) * 32), second.NONE, np.uint16)
    depths, passed = np.zeros((3, 66), np.int64), np.zeros((3, max(1, 2 * len(shapes)) * 32), np.int64)
    bytes_of_block = 4 * second.words_of_block(threads, len(shapes), 2) + 2 * held.shape[1]
    bytes_of_block += rows.itemsize * 32 * int(sets.max()) * near
    ways = np.array([ways for ways, _ in shapes] or [0], np.int32)
    begin = np.array([0, *np.cumsum(walk_rows)], np.int32)
    first = (np.cumsum(sets) - sets).astype(np.int32)
    for seed, part in enumerate((unit[:150], unit[150:151], unit[151:])):
        for tables in ([1, 0], [2]):
            tables = np.array(tables, np.int32)
            fixed = tables, first, sets, set_of, kind_of, walk_from, word, np.uint32(len(shapes)), ways, begin
            shape = len(tables), threads, bytes_of_block
            launch(*shape, part, *fixed, rows, held, depths, passed, seed=seed)
    expected = plain_counts(unit, set_of, kind_of, walk_from, walks, 2)
    assert np.array_equal(depths, expected[0])
    assert np.array_equal(passed[:, : expected[1].shape[1]], expected[1])
    assert not shapes or passed.any()


def test_threads_that_part_are_found_out():
    @cuda.jit
    def parts(out):
        if cuda.threadIdx.x != 7:
            out[cuda.threadIdx.x] = cuda.ballot_sync(0xFFFFFFFF, True)

    with pytest.raises(AssertionError, match="different places"):
        warps.launch(parts, 1, 32, 0, np.zeros(32, np.int64))


def test_a_result_that_depends_on_the_order_of_threads_is_found_out():
    @cuda.jit
    def races(out):
        cuda.syncthreads()
        out[0] = cuda.threadIdx.x

    found = np.zeros(9, np.int64)
    for seed in range(len(found)):
        warps.launch(races, 1, 64, 0, found[seed:], seed=seed)
    assert len(set(found.tolist())) > 1


@pytest.fixture
def emulated(monkeypatch):
    """A GPU of 64 threads and little memory, thread by thread."""
    kernels = {form: warps.Kernel(second.second_levels(*form)) for form in FORMS}
    monkeypatch.setattr(device, "cuda", warps.Host)
    monkeypatch.setattr(device, "KERNELS", kernels)
    monkeypatch.setattr(device, "THREADS", 64)
    monkeypatch.setattr(device, "ROOM", 150)
    return Gpu(device.Device("emulated", 1, 1 << 14, 1 << 20))


def launched():
    """Forms of the kernel that were."""
    return {form for form, kernel in device.KERNELS.items() if kernel.launched}


def alone(trace, mapped, hardware):
    found = replay(trace, mapped, hardware)
    return Counted(found.counts, found.cycles, found.memory)


def drawn(pages, accesses):
    """A trace of loads, stores and fetches to pages of three sizes."""
    rng = np.random.default_rng(pages)
    where = VMALLOC + np.sort(rng.choice(1 << 14, pages, replace=False))
    leaf = np.where(where % 4096 < 1024, 21, np.where(where > VMALLOC + 12_288, 30, 12))
    page = (pages * rng.random(accesses) ** 2).astype(np.uint32)
    flags = rng.choice(np.array([0, STORE, FETCH], np.uint8), accesses)
    return from_pages("drawn", where.astype(np.uint64), page, flags=flags), mapping(
        where.tolist(), leaf.tolist()
    )


def plain_grid(walks):
    first = tlb(1, 8, 2, serves=["load", "store"])
    return [
        machine(
            first, tlb(2, sets * ways, ways, serves=["load", "store"]), *walks, walker=Walker(start_cycles=5)
        )
        for sets in (1, 4, 5, 40)
        for ways in (1, 3, 32)
    ]


WALKS = {
    "none": [],
    "two": [Psc(name="PDPTE", level=3, entries=2), Psc(name="PDE", level=2, entries=4, ways=2)],
}


@pytest.mark.parametrize("walks", WALKS.values(), ids=WALKS)
def test_machines_are_as_alone(walks, emulated):
    """Tables of up to 5 sets in shared memory, one of 40 not; several launches."""
    room = device.shared_bytes(len(walks), 3, sum(cache.entries for cache in walks)) + 5 * 32 * 2
    emulated.device = emulated.device._replace(shared_bytes=room)
    trace, mapped = drawn(500, 400)
    grid = plain_grid(walks)
    grid += [machine(tlb(1, 8, 2, serves=["load", "store"]), tlb(2, 16, policy="random"), *walks)]
    found = together(trace, mapped, grid, gpu=emulated)
    assert found == [alone(trace, mapped, hardware) for hardware in grid]
    assert emulated.machines == len(grid) - 1
    assert launched() == {(True, True), (True, False)}


def test_more_units_than_16_bits_tell_apart(emulated, monkeypatch):
    monkeypatch.setattr(device, "NONE", 200)
    trace, mapped = drawn(600, 300)
    grid = plain_grid([Psc(name="PDE", level=2, entries=3)])
    room = device.shared_bytes(1, 3, 3) + 5 * 32 * 4
    emulated.device = emulated.device._replace(shared_bytes=room)
    found = together(trace, mapped, grid, gpu=emulated)
    assert found == [alone(trace, mapped, hardware) for hardware in grid]
    assert launched() == {(False, True), (False, False)}


def test_walk_caches_too_large_for_it_are_replayed_here(emulated):
    """More tables than one pass of the processor has."""
    trace, mapped = drawn(500, 400)
    walks = Psc(name="PDE", level=2, entries=1 << 12)
    grid = [machine(tlb(1, 8, 2), tlb(2, 2 * sets, 2), walks, walker=Walker()) for sets in range(1, 20)]
    found = together(trace, mapped, grid, fetches=False, gpu=emulated)
    assert found == together(trace, mapped, grid, fetches=False, share=False)
    assert emulated.machines == 0


def test_what_does_not_fit_in_a_word():
    one = np.ones((1, 2), np.int64)
    assert device.walk_words(one[0], one, one).tolist() == [[(1 << 28) + (1 << 16) + 1] * 2]
    assert device.walk_words(15 * one[0], 4094 * one, 65534 * one).tolist() == [
        [(15 << 28) + (4094 << 16) + 65534] * 2
    ]
    assert device.walk_words(16 * one[0], one, one) is None
    assert device.walk_words(one[0], 4095 * one, one) is None
    assert device.walk_words(one[0], one, 65535 * one) is None


def test_memory_of_the_gpu_bounds_a_pass(emulated):
    """Half of 1 MiB; 2 bytes a unit, 128 a set, 16 KiB for the rest."""
    assert module.most_tables(emulated, 1000, 100) == (1 << 19) // (2000 + 12_800 + 16_384)
    assert module.most_tables(emulated, 1 << 20, 100) == 1


GRID = """
schema = "pagewalk.sweep/1"
traces = ["synth:zipf?size=4M&accesses=1500&seed=2"]
machines = ["textbook-setassoc", "arm-neoverse-v2"]
[vary]
"tlb.STLB.ways" = [4, 8, 12]
"tlb.STLB.entries" = [48, 96]
"""


@pytest.fixture
def grid(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(GRID.replace(', "arm-neoverse-v2"', ""))
    return file


def test_a_sweep_has_the_same_rows(grid, tmp_path, emulated, monkeypatch):
    monkeypatch.setattr(module, "find_gpu", lambda: emulated)
    done = CliRunner().invoke(command, [str(grid), "--out", str(tmp_path / "on"), "--gpu"])
    assert done.exit_code == 0, done.output
    assert "12 replayed on emulated" in done.output
    sweeps.sweep(read(grid), tmp_path / "off")
    on, off = (without_times(tmp_path / name / "cells.csv") for name in ("on", "off"))
    assert on == off
    assert len(on) == 12


def test_a_driver_that_fails_ends_the_sweep_in_one_line(grid, tmp_path, emulated, monkeypatch):
    """Another process took the GPU's memory; without it the sweep goes on from where it was."""

    def fails(array):
        raise type("CudaAPIError", (Exception,), {"__module__": "numba.cuda.cudadrv.driver"})(
            "[2] Call to cuMemAlloc\nresults in CUDA_ERROR_OUT_OF_MEMORY"
        )

    monkeypatch.setattr(module, "find_gpu", lambda: emulated)
    asked = [str(grid), "--out", str(tmp_path / "on")]
    with monkeypatch.context() as patched:
        patched.setattr(warps.Host, "to_device", fails)
        done = CliRunner().invoke(command, [*asked, "--gpu"])
    assert isinstance(done.exception, BadInput)
    assert "the GPU emulated: [2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY" in str(
        done.exception
    )
    assert not (tmp_path / "on" / "cells.csv").exists()
    assert CliRunner().invoke(command, asked).exit_code == 0


def test_our_own_mistakes_are_not_the_drivers(emulated):
    with pytest.raises(IndexError), module.taken(emulated):
        [][0]
    assert not emulated.alone.locked()


def without_times(file):
    rows = csv.DictReader(file.read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "replay_seconds"} for row in rows]


def test_cells_for_a_gpu_stay_together(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    wanted = list(cells(read(tmp_path / "grid.toml")))
    sizes = sorted(len(batch) for batch in batches(wanted, 4, gpu=True))
    assert max(sizes) == 6
    assert max(len(batch) for batch in batches(wanted, 4)) == 2


@pytest.mark.parametrize("option", ["--separately", "--scheduler=tcp://127.0.0.1:1"])
def test_what_does_not_go_together(grid, tmp_path, option):
    done = CliRunner().invoke(command, [str(grid), "--out", str(tmp_path / "out"), "--gpu", option])
    assert isinstance(done.exception, BadInput)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("package", "said"),
    [(None, "needs the package numba-cuda"), (object(), "no NVIDIA GPU")],
    ids=["package", "device"],
)
def test_what_is_missing_is_said(package, said, grid, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: package)
    monkeypatch.setattr(device, "device", lambda: None)
    with pytest.raises(BadInput, match=said):
        find_gpu()
    done = CliRunner().invoke(command, [str(grid), "--out", str(tmp_path / "out"), "--gpu"])
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()
    assert said in " ".join(CliRunner().invoke(doctor).output.split())


@pytest.fixture(scope="module")
def real():
    try:
        return find_gpu()
    except BadInput as error:
        pytest.skip(str(error))


STREAMS = {
    "random": "synth:uniform?size=256M&accesses=2000000",
    "zipf": "synth:zipf?size=1G&accesses=2000000",
    "kernel": "sample:gitdiff",
}


@pytest.mark.parametrize("mapping_name", ["base", "pmd"])
@pytest.mark.parametrize("machine_name", ["textbook-setassoc", "textbook-fullassoc"])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_real_gpu_counts_what_the_processor_counts(stream, machine_name, mapping_name, real):
    """1024 second levels of 1 to 2048 sets; units in 16 bits and in 32."""
    opened, hardware = subject(stream), load(machine_name)
    shapes = [(sets, ways) for sets in [*range(1, 1024, 33), 2048] for ways in range(1, 33)]
    grid = [changed(hardware, {"tlb.STLB.entries": s * w, "tlb.STLB.ways": w}) for s, w in shapes]
    mapped, before = opened.mapped(mapping_name, hardware), real.machines
    assert together(opened.trace, mapped, grid, gpu=real) == together(opened.trace, mapped, grid)
    assert real.machines - before == len(grid)
