"""Demonstrations to samples: specs, storage, windows, statistics; imports none of ours."""
