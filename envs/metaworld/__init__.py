"""The fifty tasks of Meta-World; only `simulation` and `expert` need the package of that name."""
