"""Questions put to the engine: compare, curve, sweep, plan, calibrate, validate."""
