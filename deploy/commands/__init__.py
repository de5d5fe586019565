"""What the verbs of the `prise` command do: one module each, with `run(config) -> exit status`."""
