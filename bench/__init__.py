"""The asv suite: what the model says (exact), and how fast it says it."""
