"""Predicting boundaries slice by slice: tiles anchored to the volume, and the predictor that lives in a worker."""
