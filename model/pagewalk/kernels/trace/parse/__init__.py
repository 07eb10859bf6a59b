"""Compiled loops that take other tools' formats apart; sealed as all kernels are."""
