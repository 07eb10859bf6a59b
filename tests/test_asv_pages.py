"""What asv publishes, opened in a browser without a network."""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from browser import dom, needs_chromium
from places import REPOSITORY

RESULTS = REPOSITORY / "results" / "asv"
ASV, TACHYON = (Path(sys.executable).parent / name for name in ("asv", "asv-tachyon"))

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(not (ASV.exists() and TACHYON.exists()), reason="no asv or asv-tachyon installed"),
    pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a checkout"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The committed results as pages."""
    folder = tmp_path_factory.mktemp("asv")
    config = json.loads((REPOSITORY / "asv.conf.json").read_text())
    shutil.copytree(RESULTS, folder / "results")
    config |= {
        "repo": str(REPOSITORY),
        "results_dir": str(folder / "results"),
        "html_dir": str(folder / "html"),
    }
    (folder / "asv.conf.json").write_text(json.dumps(config))
    for command in ([ASV, "publish"], [TACHYON, "install", "html"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return folder / "html"


def test_every_tracked_figure_has_its_unit(published):
    benchmarks = json.loads((published / "index.json").read_text())["benchmarks"]
    tracked = {name: one for name, one in benchmarks.items() if ".track_" in name}
    model = {name.split(".")[1] for name in tracked if name.startswith("model_cost.")}
    assert model == {"Cost", "Change", "Kernel"}
    for name, one in tracked.items():
        assert one["unit"] not in ("", "unit"), name
        assert one["pretty_name"], name


def test_the_pages_show_the_figures_offline(published):
    handler = functools.partial(Quiet, directory=published)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        only_here = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        page = dom(f"http://127.0.0.1:{server.server_port}/index.html", only_here)
        server.shutdown()
    for shown in ("model_cost.Cost.track_walk_cycles", "cycles / 1000 accesses", "flushes on all CPUs"):
        assert shown in page
