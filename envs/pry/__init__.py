"""Prying a battery cell out of its tray with a thin blade: the release is felt, not seen."""
