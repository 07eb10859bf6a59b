"""``pagewalk kernels``."""

import json

import pytest
from click.testing import CliRunner

from pagewalk.cli.catalogue.kernels import kernels
from pagewalk.errors import BadInput
from pagewalk.linux.rules.releases import RULES


def run(*arguments):
    result = CliRunner().invoke(kernels, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_list_names_every_rule_once_where_it_begins():
    words = " ".join(run().split())
    for rule in RULES:
        assert words.count(rule.what) == (2 if rule.until else 1), rule.key


def test_one_release_shows_its_rules_with_sources_and_no_others():
    text = run("6.1.0-56-amd64")
    words = "".join(text.split())
    for rule in RULES:
        assert ("".join(rule.source.split()) in words and rule.key in text) or rule.key not in text
    assert "opt-in" in text
    assert "opt-out" not in text
    assert "divide-by-nodes" in text
    assert "whole-size" not in text


def test_devices_and_flushes_of_a_release():
    """Reference 3.3 and 4.7: arm64 flushed 512 pages one by one in 6.1, no more in 7.3."""
    for version, pages in (("6.1", 512), ("7.3", 511)):
        words = " ".join(run(version).split())
        assert f"leaves up to 1 GiB; above {pages} pages a full flush" in words
        assert "leaves up to 1 GiB; above 33 pages a full flush" in words
        assert "every flush is a full one" in words


def test_json_is_alone_on_standard_output():
    content = json.loads(run("6.12", "--json", "-"))
    assert content["schema"] == "pagewalk.kernels/1"
    (kernel,) = content["kernels"]
    arm = next(a for a in kernel["architectures"] if a["name"] == "arm64-64k")
    assert arm["leaf_bytes"] == [512 << 20]
    futex = next(c for c in kernel["callers"] if c["what"] == "futex tables")
    assert futex["asks"] == "unknown"


def test_newer_than_what_was_read():
    assert "Newer than the sources" in run("8.0")


def test_a_release_that_is_none():
    with pytest.raises(BadInput, match="six"):
        run("six")
