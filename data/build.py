"""Components from plain dicts: the one place where a config becomes objects."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PACKAGES = ("data", "envs", "policy", "deploy")
_TARGET, _PARTIAL = "_target_", "_partial_"


def build(config: Mapping[str, Any], /, *, within: Sequence[str] = PACKAGES, **runtime: Any) -> Any:
    """Instantiate `{"_target_": "policy.module.Name", **kwargs}`, nested components first.

    Configs travel inside checkpoints, so a target must be a public class or function that is
    defined in one of `PACKAGES`: nothing that these modules merely import can be reached.
    `_partial_: true` gives a `functools.partial`. Lists and mappings without `_target_` are kept,
    with the components inside them built.

    Args:
        config: The component, as it stands in a YAML file.
        within: Modules and packages that targets may come from; fewer where the config is not the
            user's own.
        runtime: Arguments that only the caller knows (specs, shapes); for the top component only.
    """
    if not isinstance(config, Mapping) or _TARGET not in config:
        raise ValueError(
            f"a component needs the key {_TARGET!r} ('policy.module.Name'), got {config!r}."
        )
    return _component(config, runtime, within)


def _build_value(value: Any, within: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        if _TARGET in value:
            return _component(value, {}, within)
        return {key: _build_value(item, within) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_build_value(item, within) for item in value]
    return value


def _component(config: Mapping[str, Any], runtime: Mapping[str, Any], within: Sequence[str]) -> Any:
    target = _resolve(config[_TARGET], within)
    name = config[_TARGET]
    kwargs = {k: _build_value(v, within) for k, v in config.items() if k not in (_TARGET, _PARTIAL)}
    if twice := sorted(kwargs.keys() & runtime.keys()):
        raise ValueError(f"{name}: {twice} is set by the program; remove it from the config.")
    kwargs |= runtime
    partial = config.get(_PARTIAL, False)
    if not isinstance(partial, bool):
        raise ValueError(f"{name}: {_PARTIAL} must be true or false, got {partial!r}.")
    _check_arguments(name, target, kwargs, partial)
    return functools.partial(target, **kwargs) if partial else target(**kwargs)


def _resolve(target: Any, within: Sequence[str]) -> Callable[..., Any]:
    """The class or function behind `package.module.Name`, if it is defined in `within`."""
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or parts[0] not in PACKAGES or not all(p.isidentifier() for p in parts):
        raise ValueError(
            f"target {target!r} refused: it must be 'package.module.Name' with package one of "
            f"{', '.join(PACKAGES)}."
        )
    module_name, name = target.rsplit(".", 1)
    if not _inside(module_name, within):
        raise ValueError(
            f"target {target!r} refused: here it must lie in one of {', '.join(within)}."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A missing third-party dependency inside the module must not look like a wrong target.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"target {target!r}: there is no module {error.name!r}.") from error
    component = getattr(module, name, None)
    home = str(getattr(component, "__module__", ""))
    if name.startswith("_") or not callable(component) or not _inside(home, within):
        raise ValueError(
            f"target {target!r} refused: {module_name} defines {_public(module)}, not {name!r}."
        )
    return component  # type: ignore[no-any-return]  # getattr is Any


def _inside(module: str, within: Sequence[str]) -> bool:
    return any(f"{module}.".startswith(f"{place}.") for place in within)


def _public(module: Any) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isclass(value) | inspect.isfunction(value)
        and value.__module__ == module.__name__
    )


def _check_arguments(
    name: str, target: Callable[..., Any], kwargs: Mapping[str, Any], partial: bool
) -> None:
    parameters = inspect.signature(target).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    accepted = [p.name for p in named]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    unknown = [key for key in kwargs if key not in accepted]
    if unknown and not takes_any:
        raise ValueError(f"{name} does not know {unknown}; it accepts {accepted}.")
    missing = [p.name for p in named if p.default is p.empty and p.name not in kwargs]
    if missing and not partial:
        raise ValueError(f"{name} needs {missing}; it was given {sorted(kwargs)}.")
