"""trace, with its own commands."""
