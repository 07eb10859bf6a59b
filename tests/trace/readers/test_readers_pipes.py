"""What comes through a pipe: the same trace as from a file, read once, and refused as whole."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading

import pytest

import foreign
from foreign import Access
from pagewalk.cli import main
from pagewalk.errors import BadInput
from pagewalk.trace.open import open_raw, open_trace
from pagewalk.trace.readers import pipe

SOME = [
    Access("fetch", 0x401000, 4),
    Access("load", 0x7FFE_0000_1000),
    Access("store", 0xFFFF_C900_0000_0FF8),
]
LACKEY = foreign.lackey(SOME * 3000)


@pytest.fixture
def fifo(tmp_path):
    """Make a named pipe through which a content comes."""
    threads = []

    def make(content):
        path = tmp_path / f"pipe{len(threads)}"
        os.mkfifo(path)

        def write():
            with path.open("wb") as file:
                file.write(content)

        threads.append(threading.Thread(target=write))
        threads[-1].start()
        return path

    yield make
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "content",
    [
        LACKEY,
        gzip.compress(LACKEY),
        foreign.capture(SOME * 100),
        foreign.drmemtrace(SOME),
        foreign.csv(SOME),
        foreign.champsim(SOME),
    ],
    ids=["lackey", "gzip", "capture", "drmemtrace", "csv", "champsim"],
)
def test_a_pipe_gives_the_accesses_of_a_file(tmp_path, fifo, content):
    plain = tmp_path / "plain"
    plain.write_bytes(content)
    found = []
    for path in (plain, fifo(content)):
        raw = open_raw(path)
        chunks = list(raw.read(1 << 20))
        found.append((raw.digest(), [(c.address.tolist(), c.flags.tolist()) for c in chunks]))
    assert found[0] == found[1]
    assert (
        found[0][0] == hashlib.sha256(gzip.decompress(content) if content[0] == 31 else content).hexdigest()
    )


def test_a_pipe_that_is_kept_can_be_read_twice_and_no_larger_one(fifo, monkeypatch):
    assert open_trace(fifo(LACKEY)).accesses == 9000
    monkeypatch.setattr(pipe, "KEPT", len(LACKEY) - 1)
    with pytest.raises(BadInput, match=r"pipe1: is a pipe, which can be read only once; pagewalk trace conv"):
        open_trace(fifo(LACKEY)).digest()


def test_standard_input_becomes_a_folder(tmp_path):
    command = [sys.executable, "-m", "pagewalk", "trace", "convert", "-", "out"]
    subprocess.run(command, input=LACKEY, cwd=tmp_path, timeout=120, check=True)
    assert open_trace(tmp_path / "out").accesses == 9000
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["made_by"]["from"] == "stdin"


def test_a_digest_that_was_not_worked_out_on_the_way_is_when_asked_for(tmp_path):
    path = tmp_path / "some.lackey"
    path.write_bytes(LACKEY)
    raw = open_raw(path, digest=False)
    assert sum(len(chunk.address) for chunk in raw.read(1 << 20)) == 9000
    assert raw.digest() == hashlib.sha256(LACKEY).hexdigest()


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (LACKEY[:-3], [], f"pipe0: byte {LACKEY.rindex(b'==1==')}: ends within a line"),
        (b"PK\x03\x04" + bytes(100), [], "a zip archive does not come through a pipe"),
        (b"PAR1" + bytes(100), [], "is not a regular file"),
        (b"", ["--format", "csv"], "no column of addresses"),
    ],
    ids=["cut off", "zip", "parquet", "nothing"],
)
def test_what_cannot_come_through_a_pipe_leaves_nothing(
    tmp_path, monkeypatch, capsys, fifo, content, words, told
):
    monkeypatch.chdir(tmp_path)
    path = fifo(content)
    monkeypatch.setattr("sys.argv", ["pagewalk", "trace", "convert", str(path), "out", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]
