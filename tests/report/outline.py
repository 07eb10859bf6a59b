"""What every page must be: whole in itself, and fit to be read aloud."""

import re
from html.parser import HTMLParser
from itertools import pairwise


class Outline(HTMLParser):
    """What a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def check_whole(text):
    """No script, nothing from the network, no address but of a place on the page."""
    outline = Outline(text)
    for tag, attributes in outline.tags:
        assert tag not in ("script", "link", "iframe", "img", "object", "base"), tag
        assert not any(key.startswith("on") for key in attributes), attributes
        for key in ("href", "src", "xlink:href"):
            assert attributes.get(key, "#").startswith("#"), attributes
    urls = set(re.findall(r"(?:https?:)?//[a-z][^\s\"'<)]+", text))
    assert all("w3.org/" in url for url in urls), urls
    assert "@import" not in text
    assert "url(#" in text or "url(" not in text


def check_heard(text):
    """One h1, no level of headings left out, tables with captions and heads, each place on the page once."""
    outline = Outline(text)
    assert outline.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(outline.all("caption")) == len(outline.all("table")) > 0
    assert all("scope" in head for head in outline.all("th"))
    for attributes in outline.all("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0", "what scrolls must be reached by keyboard"
            assert attributes["role"] == "region"
            assert attributes["aria-label"]
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "an identifier is used twice"
    assert {attributes["href"][1:] for attributes in outline.all("a")} <= set(ids)
