"""Answers to look at: tables, figures, pages."""
