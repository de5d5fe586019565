"""One self-contained HTML page about a run, made from the run's files alone."""
