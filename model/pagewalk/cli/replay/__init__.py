"""run, replay, explain."""
