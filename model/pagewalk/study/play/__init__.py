"""Scenarios of events: a modelled kernel lives through them, and the accesses between become a trace."""
