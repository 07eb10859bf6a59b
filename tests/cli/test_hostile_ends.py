"""Where output goes and what ends a command: devices, links, full disks, closed pipes, odd names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pagewalk.errors import BadInput
from pagewalk.files import read_at_most, ready, write_whole

FULL = Path("/dev/full")


def pagewalk(*words: str | bytes, **more) -> subprocess.CompletedProcess[str]:
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60} | more
    return subprocess.run([sys.executable, "-m", "pagewalk", *words], text=True, check=False, **settings)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a refused command said; it said it in one line and ended with 2."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


def test_a_pipe_is_written_into_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()


def test_ready_leaves_nothing_and_refuses_early(tmp_path):
    (tmp_path / "file").write_text("old")
    ready(tmp_path / "file")
    ready(tmp_path / "new" / "deep" / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    for target in (tmp_path / "file" / "below", tmp_path):
        with pytest.raises(BadInput, match="cannot be written"):
            ready(target)


def test_a_file_is_read_up_to_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"1234")
    assert read_at_most(tmp_path / "file", 4) == b"1234"
    with pytest.raises(BadInput, match="larger than"):
        read_at_most(tmp_path / "file", 3)


@pytest.mark.parametrize("command", [["run"], ["sweep"], ["check"], ["report"]])
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_a_file_without_end_is_refused(command, tmp_path):
    assert "/dev/zero: larger than" in one_line(pagewalk(*command, "/dev/zero", cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["machines"], ["kernels", "6.12", "--json", "-"]])
def test_a_full_disk_is_one_line(words):
    with FULL.open("w") as full:
        said = one_line(pagewalk(*words, stdout=full))
    assert said.startswith("pagewalk: standard output") and "No space left on device" in said


@pytest.mark.parametrize("words", [["machines"], ["kernels", "6.12", "--json", "-"]])
def test_a_reader_that_went_away_is_no_fault(words):
    reader, writer = os.pipe()
    os.close(reader)
    done = pagewalk(*words, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_streams():
    script = f"{sys.executable} -m pagewalk"
    closed = subprocess.run(
        f"{script} kernels 6.12 --json - >&-", shell=True, capture_output=True, check=False
    )
    assert closed.stderr == b""
    closed = subprocess.run(f"{script} machines nosuch 2>&-", shell=True, capture_output=True, check=False)
    assert (closed.returncode, closed.stdout) == (2, b"")


def test_a_name_that_is_no_utf8_is_refused_before_work(tmp_path):
    said = one_line(pagewalk("replay", "synth:uniform?size=1M", "--json", b"a\xff\n.json", cwd=tmp_path))
    assert "is no UTF-8" in said and "rename" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "small.npy", "--share", "nan"],
        ["plan", "--rate", "nan"],
        ["curve", "small.npy", "--seed", "-5", "--sample", "0.5"],
        ["curve", "small.npy", "--plot", "picture.xyz"],
        ["calibrate", "--out", "small.npy/below/machine.toml"],
        ["replay", "small.npy", "--json", "small.npy/result.json"],
        ["replay", "small.npy", "--json", ""],
        ["curve", "small.npy", "--json", "small.npy/curve.json"],
        ["trace", "info", "small.npy", "--json", ""],
        ["run", "--out", "small.npy/below"],
        ["sweep", "grid.toml", "--out", "small.npy/below"],
    ],
    ids=lambda words: words[0] + words[-1][-4:],
)
def test_refused_before_work(words, tmp_path):
    np.save(tmp_path / "small.npy", np.arange(1 << 32, (1 << 32) + 40960, 4096, np.uint64))
    (tmp_path / "grid.toml").write_text(
        'schema = "pagewalk.sweep/1"\ntraces = ["small.npy"]\n'
        'machines = ["textbook-setassoc"]\nmappings = ["base"]\n'
    )
    before = sorted(tmp_path.rglob("*"))
    said = one_line(pagewalk(*words, cwd=tmp_path))
    assert not said.startswith("pagewalk: standard output")
    assert "compiling" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_folder_that_cannot_be_written_is_one_line(tmp_path):
    """A file stands where the folder would be; the answer comes all the same."""
    (tmp_path / "cache").write_text("")
    trace = "synth:sequential?size=1M&accesses=100"
    done = pagewalk("trace", "info", trace, env=os.environ | {"PAGEWALK_CACHE_DIR": str(tmp_path / "cache")})
    assert done.returncode == 0 and "100 records" in done.stdout
    first, *_ = done.stderr.splitlines()
    assert first.startswith("pagewalk: ") and "kernels are compiled in every process" in first
    assert "warnings.warn" not in done.stderr and ".py" not in done.stderr


def test_json_into_a_device(tmp_path):
    done = pagewalk("kernels", "6.12", "--json", "/dev/stderr", cwd=tmp_path)
    assert json.loads(done.stderr)
    assert done.returncode == 0
