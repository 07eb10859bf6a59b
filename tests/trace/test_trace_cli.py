"""pagewalk trace info, convert, synth: as a user calls them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pagewalk.cli import main
from pagewalk.trace.open import open_trace
from places import OUTSIDE

SHARED = OUTSIDE / "traces"

AREA_OF = {
    "direct_map": "direct map",
    "vmalloc_stacks": "kernel stacks",
    "vmalloc_other": "other vmalloc areas",
    "vmemmap": "vmemmap",
    "cpu_entry_area": "cpu_entry_area",
    "kernel_image": "kernel image",
    "modules": "modules",
    "fixmap": "fixmap",
}
"""The recorder's names of address ranges -> ours."""


@pytest.fixture
def pagewalk(monkeypatch, capsys):
    """Call the command line; (exit status, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pagewalk", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.mark.skipif(not SHARED.exists(), reason="recorded traces are not here")
@pytest.mark.parametrize("name", ["gitdiff-small", "fdtable"])
def test_info_says_what_the_recorder_counted(pagewalk, name):
    """meta.json holds the recorder's own statistics, made by other code (pack.py)."""
    status, out, _ = pagewalk("trace", "info", SHARED / name, "--json", "-")
    found, meta = json.loads(out), json.loads((SHARED / name / "meta.json").read_text())
    stats = meta["stats"]
    assert status == 0
    assert found["records"] == stats["records"]
    assert found["loads"] + found["stores"] == found["data"]["accesses"] == stats["data_accesses"]
    assert found["stores"] == stats["stores"]
    assert found["code"]["accesses"] == stats["ifetch_page_changes"]
    assert found["data"]["base_pages"] == stats["unique_4k_pages"]
    assert found["data"]["pages_2m"] == stats["unique_2m_pages"]
    assert round(found["mean_run"], 3) == stats["mean_run_on_one_4k_page"]
    ranges = {part["name"]: part for part in found["ranges"]}
    assert ranges.keys() == {AREA_OF[area] for area in stats["areas"]}
    for area, counted in stats["areas"].items():
        part = ranges[AREA_OF[area]]
        ours = (part["accesses"], part["base_pages"], part["pages_2m"], round(part["share"], 6))
        assert ours == (counted["accesses"], counted["pages_4k"], counted["pages_2m"], counted["share"])
    by_caller: dict[str, int] = {}
    for region in stats["regions"]:
        caller = region["caller"].split("+0x")[0]
        by_caller[caller] = by_caller.get(caller, 0) + region["accesses"]
    if len(stats["regions"]) < 20:  # the recorder lists the first twenty only
        assert by_caller == {part["name"]: part["accesses"] for part in found["areas"]}
    assert found["recorder"]["kernel"] == meta["kernel"]


def test_info_of_the_sample(pagewalk, tmp_path):
    status, out, _ = pagewalk("trace", "info", "sample:gitdiff", "--json", tmp_path / "info.json")
    assert status == 0
    info = json.loads((tmp_path / "info.json").read_text())
    for said in ("gitdiff", "16.8 M records", "kernel stacks", "alloc_large_system_hash", "6.1.0-56-amd64"):
        assert said in out
    assert info["schema"] == "pagewalk.trace-info/1"
    assert sum(part["accesses"] for part in info["ranges"]) == info["data"]["accesses"]
    assert info["sha256"] == open_trace("sample:gitdiff").digest()


def test_info_of_addresses(pagewalk, tmp_path):
    """Without a layout: named ranges of x86-64, and one load for each address."""
    kernel = [0xFFFFC90000000000, 0xFFFF888000000000, 0xFFFFEFFFFFFFFFFF]
    np.save(tmp_path / "a.npy", np.array([0x1000, 0x1008, *kernel], np.uint64))
    _, out, _ = pagewalk("trace", "info", tmp_path / "a.npy", "--json", "-")
    found = json.loads(out)
    assert {part["name"]: part["accesses"] for part in found["ranges"]} == {
        "user": 2,
        "vmalloc space": 1,
        "direct map": 1,
        "other": 1,
    }
    assert (found["records"], found["loads"], found["stores"], found["areas"]) == (5, 5, 0, [])
    assert found["mean_run"] == 5 / 4
    assert found["files"] == [{"name": "a.npy", "size_bytes": 168}]


def test_convert(pagewalk, tmp_path):
    draw = np.random.default_rng(2)
    address = np.uint64(0xFFFFC90000000000) + draw.integers(0, 1 << 30, 100_000).astype(np.uint64)
    np.save(tmp_path / "a.npy", address)
    for options, expected in (
        ([], address),
        (["--plain"], address),
        (["--records", "70:1000"], address[70:1000]),
        (["--records", ":9"], address[:9]),
        (["--records", "99990:"], address[99990:]),
    ):
        out = tmp_path / "-".join(["t", *options]).replace(":", "to")
        status, printed, said = pagewalk("trace", "convert", tmp_path / "a.npy", out, *options)
        assert (status, printed) == (0, "")
        assert f"pagewalk trace info {out}" in said
        trace = open_trace(out)
        found = [trace.pages[c.page] << np.uint64(12) | c.offset for c in trace.chunks("offset")]
        np.testing.assert_array_equal(np.concatenate(found), expected)
        assert (out / "page.npy").exists() == ("--plain" in options)
        made_of = json.loads((out / "meta.json").read_text())["made_by"]["from"]
        if options:
            assert open_trace(tmp_path / "a.npy").digest() in made_of
        else:
            assert made_of == f"a.npy, {(tmp_path / 'a.npy').stat().st_size} bytes"


def test_convert_takes_the_layout_along(pagewalk, tmp_path):
    pagewalk("trace", "convert", "sample:gitdiff", tmp_path / "t", "--records", "5000:9000")
    _, out, _ = pagewalk("trace", "info", tmp_path / "t", "--json", "-")
    info = json.loads(out)
    assert info["records"] == 4000
    assert "kernel_clone" in {part["name"] for part in info["areas"]}
    assert info["recorder"]["workload"] == "gitdiff"
    assert "stats" not in info["recorder"]


def test_synth(pagewalk, tmp_path):
    options = ["--size", "4M", "--accesses", "1e5", "--seed", "7", "--stores", "0.25"]
    status, _, _ = pagewalk("trace", "synth", "zipf", tmp_path / "z", *options)
    assert status == 0
    made = open_trace(tmp_path / "z")
    direct = open_trace("synth:zipf?size=4M&accesses=100000&seed=7&stores=0.25")
    (one,), (other,) = made.chunks("offset", "flags"), direct.chunks("offset", "flags")
    np.testing.assert_array_equal(made.pages[one.page], direct.pages[other.page])
    np.testing.assert_array_equal(one.offset, other.offset)
    np.testing.assert_array_equal(one.flags, other.flags)
    assert open_trace(str(made.about["workload"])).digest() == direct.digest()


def test_synth_of_parts(pagewalk, tmp_path):
    parts = ["--part", "1*zipf?size=64K", "--part", "2*stride?size=1M&step=4096"]
    assert pagewalk("trace", "synth", "mixed", tmp_path / "m", "--accesses", "1000", *parts)[0] == 0
    spelled = "part=1*zipf%3Fsize%3D64K&part=2*stride%3Fsize%3D1M%26step%3D4096"
    direct = open_trace(f"synth:mixed?accesses=1000&{spelled}")
    np.testing.assert_array_equal(open_trace(tmp_path / "m").pages, direct.pages)


def test_help_names_every_default(pagewalk):
    _, out, _ = pagewalk("trace", "synth", "probes", "--help")
    for said in ("--table", "--hot-size", "default: 64M", "default: 16K", "0xffffc90000000000"):
        assert said in out


WRONG = [
    ["info", "nothing"],
    ["info", "sample:nothing"],
    ["info", "synth:nothing"],
    ["info", "signed.npy"],
    ["info"],
    ["info", "good.npy", "--json", "good.npy/info.json"],
    ["convert", "good.npy", "exists"],
    ["convert", "good.npy", "missing/out"],
    ["convert", "signed.npy", "out"],
    ["convert", "good.npy", "out", "--records", "3"],
    ["convert", "good.npy", "out", "--records", "3:2"],
    ["convert", "good.npy", "out", "--records", "0:11"],
    ["convert", "good.npy", "out", "--records", "-1:3"],
    ["convert", "good.npy", "out", "--records", "9" * 30 + ":"],
    ["convert", "good.npy"],
    ["synth"],
    ["synth", "nothing", "out"],
    ["synth", "uniform", "exists"],
    ["synth", "uniform", "out", "--size", "3"],
    ["synth", "uniform", "out", "--accesses", "many"],
    ["synth", "mixed", "out", "--part", "zipf"],
    [],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_bad_input_is_one_line_and_nothing_written(pagewalk, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", np.arange(10, dtype=np.uint64))
    np.save("signed.npy", np.arange(10))
    Path("exists").mkdir()
    status, out, err = pagewalk("trace", *arguments)
    lines = [line for line in err.splitlines() if line != "compiling kernels (once)"]
    assert (status, out, len(lines)) == (2, "", 1), (out, err)
    assert lines[0].startswith("pagewalk: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exists", "good.npy", "signed.npy"]
    assert not list(Path("exists").iterdir())


def test_an_interrupt_leaves_nothing(tmp_path):
    endless = ["synth", "uniform", str(tmp_path / "t"), "--accesses", "1e12"]
    running = subprocess.Popen(
        [sys.executable, "-m", "pagewalk", "trace", *endless], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".t.*/offset.npy.zst")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (tmp_path / "t").exists()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
