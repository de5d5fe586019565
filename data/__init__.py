"""Demonstrations to samples: specs, storage, windows, statistics. Imports none of the other packages."""
