"""Command line to a plain, checked dict: with `sweep`, the one place that knows Hydra."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deploy.commands.usage import CONFIGS, groups

MISSING = "???"
METAWORLD = "metaworld"  # the option of `env` that holds many tasks
COMPANIONS = ("expert", "dataset")  # groups that follow `env` where both have the option
# Words that stand for a number which is looked up later.
WORDS = {"start_level": ("estimated",), "probe_level": ("estimated",)}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", list: "a list [a,b]"}


class ConfigError(ValueError):
    """An argument of the command does not fit its config."""


def compose(verb: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The config of `verb` with `arguments` (Hydra overrides) applied, all references resolved.

    Keys must exist, options of groups too, and a value must be of its default's type. The names of
    the chosen options are added as `choices`: group -> option.
    """
    overrides = [parse(argument) for argument in arguments]
    overrides += [parse(argument) for argument in _companions(verb, overrides)]
    chosen = [o for o in overrides if o.key_or_group in groups(verb)]
    for override in chosen:
        _check_option(override)
    # With the groups alone: which keys there are, and of what type.
    composed, choices = _compose(verb, [o.input_line or "" for o in chosen])
    base = _plain(composed, resolve=False)
    for override in overrides:
        if override not in chosen and not override.is_add():
            _check_key(verb, base, override)
    if len(chosen) < len(overrides):
        composed, _ = _compose(verb, [o.input_line or "" for o in overrides])
    leaves = _leaves(_plain(composed, resolve=False))
    if missing := [key for key, value in leaves if value == MISSING]:
        raise ConfigError(f"{missing[0]} is needed: add {missing[0]}=...")
    config = _plain(composed, resolve=True)
    _check_values(base, config)
    return config | {"choices": choices}


def parse(argument: str) -> Override:
    """One override in Hydra's grammar."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        key, _, value = argument.partition("=")
        hint = f"; quote an unusual value: \"{key}='{value}'\"" if value else ""
        raise ConfigError(
            f"cannot read the argument {argument!r}: write key=value{hint}."
        ) from error


def _compose(verb: str, arguments: Sequence[str]) -> tuple[DictConfig, dict[str, str | None]]:
    """The config without Hydra's own part, and the option chosen in each group."""
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            raw = hydra_compose(verb, list(arguments), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    choices = {group: raw.hydra.runtime.choices.get(group) for group in groups(verb)}
    return OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"]), choices


def _plain(config: DictConfig, resolve: bool) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=resolve)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def _companions(verb: str, overrides: Sequence[Override]) -> list[str]:
    """A task brings its expert and its dataset, where others were not chosen."""
    chosen = {o.key_or_group: o.value() for o in overrides}
    task = _family(str(chosen.get("env", "")))
    return [
        f"{group}={task}"
        for group in COMPANIONS
        if group in groups(verb) and group not in chosen
        if task in _options(group)
    ]


def _family(option: str) -> str:
    return option.partition("/")[0]


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _offer_task(option: str) -> None:
    """Make env=metaworld/NAME an option of Hydra's: fifty files would differ in one word."""
    from envs.metaworld.tasks import task_named  # brings numpy: not for a help text

    config = yaml.safe_load((CONFIGS / "env" / f"{METAWORLD}.yaml").read_text(encoding="utf-8"))
    name = option.partition("/")[2]
    config["kwargs"]["task"] = task_named(name)
    ConfigStore.instance().store(group=f"env/{METAWORLD}", name=name, node=config)


def _check_option(override: Override) -> None:
    group, option = override.key_or_group, override.value()
    if group == "env" and str(option).startswith(f"{METAWORLD}/"):
        _offer_task(str(option))
        return
    known = _options(group)
    if override.is_delete() or (option is not None and option not in known):
        raise ConfigError(
            f"group {group} has no option {option!r}{_nearest(str(option), known)} "
            f"Known: {', '.join(known)}."
        )


def _check_key(verb: str, base: Mapping[str, Any], override: Override) -> None:
    node: Any = base
    for part in override.key_or_group.split("."):
        if not isinstance(node, Mapping) or part not in node:
            known = [*groups(verb), *(key for key, _ in _leaves(base))]
            raise ConfigError(
                f"unknown key {override.key_or_group!r}{_nearest(override.key_or_group, known)} "
                f"`prise {verb} --help` lists the keys."
            )
        node = node[part]
    if isinstance(node, Mapping) and not isinstance(override.value(), Mapping):
        raise _not_a_branch(override.key_or_group, override.value())


def _check_values(base: Mapping[str, Any], config: dict[str, Any], prefix: str = "") -> None:
    """Compare each value's type with its default's; numbers given for text become text."""
    for key, default in base.items():
        if key not in config or default is None or _is_reference(default):
            continue
        value, name = config[key], f"{prefix}{key}"
        if isinstance(default, Mapping):
            if not isinstance(value, dict):
                raise ConfigError(
                    f"{name} holds keys of its own, got {value!r}; set {name}.KEY=..."
                )
            _check_values(default, value, f"{name}.")
        elif value in WORDS.get(key, ()) or (default in WORDS.get(key, ()) and _fits(value, 0.0)):
            continue
        elif isinstance(default, str):
            if isinstance(value, (list, dict)) or value is None:
                raise ConfigError(f"{name} must be text, got {value!r}.")
            config[key] = str(value)
        elif not _fits(value, default):
            raise ConfigError(f"{name} must be {KINDS[type(default)]}, got {value!r}.")


def _not_a_branch(name: str, value: Any) -> ConfigError:
    return ConfigError(f"{name} has keys of its own, got {value!r}; set {name}.KEY=...")


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("${") and value.endswith("}")


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nearest(word: str, known: Iterable[str]) -> str:
    """How the sentence about an unknown word ends: with what may have been meant, or not."""
    known = list(known)
    # A key given without its prefix is nearer than anything that is spelt like it.
    near = [key for key in known if key.split(".")[-1] == word]
    near = near or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean {' or '.join(near)}?" if near else "."
