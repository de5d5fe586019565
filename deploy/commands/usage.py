"""The texts of `prise --help` and `prise VERB --help`, read from `configs/`: never stale."""

from __future__ import annotations

from functools import cache
from itertools import zip_longest
from pathlib import Path

import yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def verbs_text(verbs: list[str]) -> str:
    """One line a verb: the first line of its config."""
    lines = [f"  {verb:<11}{_head(verb)[0]}" for verb in verbs]
    lines = ["usage: prise VERB [key=value ...]", "", *lines]
    return "\n".join([*lines, "", "`prise VERB --help` explains a verb."])


def verb_text(verb: str) -> str:
    """Purpose and examples, groups with their options, keys with their defaults."""
    lines = [f"prise {verb}: {_head(verb)[0]}", *(f"  {line}" for line in _head(verb)[1:])]
    if groups(verb):
        lines += ["", "groups, as group=option; * is the default"]
    for group, default in groups(verb).items():
        options = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
        marked = ["*" + option if option == default else option for option in options]
        lines.append(f"  {group:<12}{' '.join(marked)}")
    lines += ["", "keys with their defaults, as key=value or group.key=value"]
    for group, default in groups(verb).items():
        if default and (body := _body(f"{group}/{default}")):
            lines += [f"  {group}:", *(f"    {line}" for line in body)]
    return "\n".join(lines + [f"  {line}" for line in _body(verb)])


@cache
def groups(verb: str) -> dict[str, str | None]:
    """Config groups of `verb` and the default option of each, in the order of its defaults list."""
    config = yaml.safe_load((CONFIGS / f"{verb}.yaml").read_text(encoding="utf-8")) or {}
    entries = [entry for entry in config.get("defaults", ()) if isinstance(entry, dict)]
    return {group: option for entry in entries for group, option in entry.items()}


def _head(verb: str) -> list[str]:
    """The comment lines that open a config."""
    head: list[str] = []
    for line in (CONFIGS / f"{verb}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        head.append(line[1:].strip())
    return head


def _body(name: str) -> list[str]:
    """The lines of a config that a user can override: no head, no defaults list, no targets."""
    body: list[str] = []
    in_defaults = False
    for line in (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "-")):
            in_defaults = line.startswith("defaults:")
        hidden = in_defaults or line.startswith("#") or line.strip().startswith("_")
        if line.strip() and not hidden:
            body.append(line)
    # A key of which only the target was there has nothing to override.
    return [
        line
        for line, after in zip_longest(body, body[1:], fillvalue="")
        if not line.endswith(":") or _indent(after) > _indent(line)
    ]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
