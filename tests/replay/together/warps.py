"""Runs a CUDA kernel in plain Python, warps and all: numba's simulator knows no votes and no shuffles.

A thread is a generator that stops wherever it must wait for others. Between those places the threads of a
warp, and the warps of a block, run in an order drawn anew each time, at times one warp far ahead of the
others, so that a kernel whose result depends on it is found out; so is a vote or shuffle that not all lanes
of a warp come to.
"""

import ast
import inspect
import random
import textwrap
from functools import partial
from types import SimpleNamespace

import numpy as np

LANES = 32
TOGETHER = {"syncthreads", "ballot_sync", "shfl_up_sync"}
ALL = 0xFFFFFFFF


class _Stops(ast.NodeTransformer):
    """Make a thread stop at each call that concerns several: ``cuda.f(x)`` -> ``(yield ("f", x))``."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in TOGETHER:
            return ast.Yield(ast.Tuple([ast.Constant(node.func.attr), *node.args], ast.Load()))
        return node


class _Cuda:
    """What a kernel finds under the name `cuda`."""

    def __init__(self, block_dim, shared_bytes):
        self.blockDim = SimpleNamespace(x=block_dim)
        self.blockIdx, self.threadIdx = SimpleNamespace(x=0), SimpleNamespace(x=0)
        self.memory = bytearray(shared_bytes)
        self.shared = SimpleNamespace(array=self.array)
        self.atomic = SimpleNamespace(add=self.add)

    def array(self, shape, dtype):
        assert shape == 0
        size = np.dtype(dtype).itemsize
        return np.frombuffer(self.memory, dtype, len(self.memory) // size)

    @staticmethod
    def add(array, index, value):
        assert index >= 0
        array[index] += value

    @staticmethod
    def clz(value):
        return np.uint32(32 - int(value).bit_length())

    @staticmethod
    def popc(value):
        return int(value).bit_count()


class _Checked(np.ndarray):
    """An array that knows no negative indices."""

    def __getitem__(self, index):
        assert min(index) >= 0 if isinstance(index, tuple) else index >= 0
        return super().__getitem__(index)


class Copy(np.ndarray):
    """What stands for an array on the GPU."""

    def copy_to_device(self, source):
        assert source.shape == self.shape
        self[...] = source

    def copy_to_host(self):
        return np.array(self)


class Kernel:
    """A kernel that is run here when it is launched."""

    def __init__(self, kernel):
        self.kernel, self.launched = kernel, []

    def __getitem__(self, how):
        blocks, threads, _, shared_bytes = how

        def begin(*arguments):
            self.launched.append(how)
            launch(self.kernel, blocks, threads, shared_bytes, *arguments, seed=len(self.launched))

        return begin


class Host:
    """What `pagewalk.kernels.gpu.device` asks of `numba.cuda`, without a GPU."""

    config = SimpleNamespace()

    @staticmethod
    def to_device(array):
        assert array.size and array.flags.c_contiguous
        return np.array(array).view(Copy)

    @staticmethod
    def device_array(shape, dtype):
        return np.empty(shape, dtype).view(Copy)

    @staticmethod
    def stream():
        return None


def launch(kernel, blocks, threads, shared_bytes, *arguments, seed=0):
    """Run a kernel (what `cuda.jit` made of a function) on arrays, which it changes."""
    function = kernel.py_func
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    tree.body[0].decorator_list = []
    found = inspect.getclosurevars(function)
    order = random.Random(seed)
    arguments = [one.view(_Checked) if isinstance(one, np.ndarray) else one for one in arguments]
    code = compile(ast.fix_missing_locations(_Stops().visit(tree)), function.__code__.co_filename, "exec")
    for block in range(blocks):
        cuda = _Cuda(threads, shared_bytes)
        cuda.blockIdx.x = block
        names = {**found.globals, **found.nonlocals, "cuda": cuda}
        exec(code, names)
        started = [names[function.__name__](*arguments) for _ in range(threads)]
        with np.errstate(over="ignore"):
            run_block(started, order, partial(setattr, cuda.threadIdx, "x"))


def run_block(threads, order, enter=lambda thread: None):
    """Run the threads of one block.

    Parameters
    ----------
    threads : sequence of generator
        Each yields the name of what it waits in, and what it brings there.
    order : random.Random
    enter : callable
        Called with the number of the thread that goes on.
    """
    warps = [range(first, first + LANES) for first in range(0, len(threads), LANES)]
    replies = dict.fromkeys(range(len(threads)))
    running, waiting, patience = [], list(warps), 0.0
    while running or waiting:
        if not running:
            running, waiting = order.sample(waiting, len(waiting)), []
            patience = order.choice((0.0, 0.9, 1.0))
        warp = running.pop(-1 if order.random() < patience else order.randrange(len(running)))
        stops = {}
        for thread in order.sample(warp, LANES):
            enter(thread)
            stops[thread] = next_stop(threads[thread], replies[thread])
            replies[thread] = None
        names = {stop[0] for stop in stops.values()}
        assert len(names) == 1, f"lanes of one warp stop at different places: {names}"
        name = names.pop()
        if name == "syncthreads":
            waiting.append(warp)
        elif name == "end":
            assert not waiting, "a warp has ended for which others wait"
        else:
            replies.update(_reply(name, stops))
            running.append(warp)


def next_stop(thread, reply):
    """Let a thread run until it waits for others, or ends."""
    try:
        return thread.send(reply)
    except StopIteration:
        return ("end",)


def _reply(name, stops):
    """What the lanes of a warp learn of each other."""
    lanes = sorted(stops)
    assert all(stop[1] == ALL for stop in stops.values())
    if name == "ballot_sync":
        vote = sum(1 << lane for lane, thread in enumerate(lanes) if stops[thread][2])
        return dict.fromkeys(lanes, vote)
    by = stops[lanes[0]][3]
    return {thread: stops[thread if lane < by else lanes[lane - by]][2] for lane, thread in enumerate(lanes)}
