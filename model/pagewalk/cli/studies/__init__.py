"""sample, curve, sweep, plan, calibrate, validate, check: one command for each question of `study`."""
