"""How a recording under the real valgrind ends: by itself, by force, by ^C; and what is left of it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pagewalk.errors import BadInput
from pagewalk.trace.open import open_trace
from pagewalk.trace.record.program import record

pytestmark = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")

FOREVER = ["sh", "-c", "while :; do :; done"]


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 7", 7), ("kill -9 $$", -signal.SIGKILL), ("ls / >&2; exit 0", 0)],
    ids=["fails", "is killed", "starts another"],
)
def test_what_a_program_did_before_it_ended_is_kept(tmp_path, script, status):
    assert record(["sh", "-c", script], tmp_path / "out") == status
    assert open_trace(tmp_path / "out").accesses > 10_000


def test_a_child_that_is_left_behind_is_not_waited_for(tmp_path):
    script = f"sleep 600 >/dev/null & echo $! >{tmp_path}/child"
    assert record(["sh", "-c", script], tmp_path / "out") == 0
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # it is still there
    assert open_trace(tmp_path / "out").accesses > 10_000


def test_a_launcher_is_refused_by_the_name_of_what_it_launches(tmp_path):
    sleep = re.escape(str(Path(shutil.which("sleep")).resolve()))
    with pytest.raises(BadInput, match=f"the command: goes on as {sleep}; record that program itself"):
        record(["sh", "-c", "ls /; exec sleep 100"], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_program_without_end_is_ended_at_a_number_of_records(tmp_path):
    assert record(FOREVER, tmp_path / "out", records=500_000) == 0
    assert open_trace(tmp_path / "out").accesses == 500_000


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_recording_leaves_nothing_and_nobody(tmp_path, number, code):
    running = subprocess.Popen(
        [sys.executable, "-m", "pagewalk", "trace", "record", "--out", "out", "--", *FOREVER],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*/page.npy.zst")):
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    assert len(children) == 1
    running.send_signal(number)
    assert running.wait(30) == code
    assert not list(tmp_path.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(int(children[0]), 0)
