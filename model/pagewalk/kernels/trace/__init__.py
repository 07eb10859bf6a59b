"""Traces before a replay: pages numbered, streams made up, formats taken apart; sealed as all kernels are."""
