"""A real browser, where one is installed: what a page looks like, and what it holds once its scripts ran."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium installed")


def _run(url: str, *options: str) -> str:
    with tempfile.TemporaryDirectory() as profile:
        command = [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={profile}"),
            *options,
            url,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def dom(url: str, *options: str) -> str:
    """The page's elements after its scripts have run for some (virtual) seconds."""
    return _run(url, "--virtual-time-budget=8000", "--dump-dom", *options)


def screenshot(url: str, target: Path, width: int, height: int, *options: str) -> Path:
    """Save a picture of the page's first `height` pixels."""
    _run(
        url,
        "--virtual-time-budget=8000",
        f"--window-size={width},{height}",
        f"--screenshot={target}",
        *options,
    )
    return target


def pdf(url: str, target: Path) -> Path:
    """Print the page."""
    _run(url, "--no-pdf-header-footer", f"--print-to-pdf={target}")
    return target
