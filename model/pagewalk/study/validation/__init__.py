"""How far the model is from what was measured: cases, predictions, errors, bands."""
