"""The walls: what may import what, what the front door loads, how kernels are compiled."""

import ast
import subprocess
import sys

import pytest

from places import REPOSITORY

PACKAGE = REPOSITORY / "model" / "pagewalk"
KERNELS = sorted((PACKAGE / "kernels").rglob("*.py"))
ALLOWED = {"numpy", "numba", "llvmlite", "typing", "pagewalk", "collections"}
"""What a sealed kernel may import; of pagewalk only pagewalk.kernels."""


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("path", [p for p in KERNELS if p.name != "_jit.py"], ids=lambda p: p.name)
def test_kernels_are_sealed(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in ALLOWED, f"{path.name} imports {name}"
            if name.startswith("pagewalk"):
                assert name.startswith("pagewalk.kernels"), f"{path.name} imports {name}"


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["machines"], ["run", "--list"]])
def test_the_front_door_loads_neither_numba_nor_matplotlib(command):
    code = (
        f"import sys; sys.argv = ['pagewalk', *{command!r}]\n"
        "from pagewalk.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('LOADED', [m for m in ('numba', 'matplotlib') if m in sys.modules])"
    )
    assert _run(code).rstrip().endswith("LOADED []")


def test_every_kernel_is_compiled_once(tmp_path):
    """Whatever dtype or memory a trace comes in, a kernel has one signature (else it compiles again)."""
    code = f"""
import numpy as np
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from pagewalk.hardware.load import load
from pagewalk.linux.mapping import map_trace
from pagewalk.replay.engine import replay, warm_up
from pagewalk.study.replays import subject
from pagewalk.trace.sample import sample_path
from pagewalk.trace.trace import from_pages
warm_up()
path = Path({str(tmp_path)!r}) / "a.npy"
np.save(path, np.arange(0, 1 << 24, 4096, dtype=np.uint64))
opened = subject(path)
for name in ("textbook-setassoc", "intel-skylake-sp", "amd-zen3-milan-guest"):
    machine = load(name)
    replay(opened.trace, opened.mapped("pmd", machine), machine)
pages = np.arange(100, dtype=np.uint64)
frozen = np.arange(100, dtype=np.uint16)
frozen.flags.writeable = False
trace = from_pages("u16", pages, frozen, flags=np.zeros(200, np.uint8)[::2], cpu=np.zeros(100, np.uint8))
replay(trace, map_trace(pages, None, "base"), load("textbook-setassoc"))
import pagewalk.kernels, importlib, pkgutil
for module in pkgutil.walk_packages(pagewalk.kernels.__path__, "pagewalk.kernels."):
    if module.name.endswith((".assoc", "._jit")):
        continue
    for name, found in vars(importlib.import_module(module.name)).items():
        if isinstance(found, Dispatcher) and found.stats.cache_path and len(found.signatures) > 1:
            print(module.name, name, found.signatures)
"""
    assert _run(code) == ""


def test_bad_input_is_one_line_and_status_2(tmp_path):
    for arguments in (["replay", str(tmp_path / "missing")], ["run", "nothing"], ["replay"], ["nonsense"]):
        done = subprocess.run(
            [sys.executable, "-m", "pagewalk", *arguments], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 2, arguments
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())
