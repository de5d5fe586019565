"""Measurements of parts: a tick of a controller, a step of training."""
