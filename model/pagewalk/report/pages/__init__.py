"""Answers as self-contained HTML pages: no script, no network, readable on a phone, in print, aloud."""
