"""Prying a glued or clamped battery cell out of its tray with a thin blade: the release can be felt, not seen."""
