"""Components from dicts."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from data.build import build
from data.spec import Horizons, ObsSpec
from data.windows import WindowIndex

HORIZONS = {"_target_": "data.spec.Horizons", "obs": 3}


def test_a_component_is_built_with_its_arguments() -> None:
    assert build(HORIZONS) == Horizons(obs=3)


def test_components_inside_components_are_built_first() -> None:
    config = {"_target_": "data.windows.WindowIndex", "episode_ends": [4], "horizons": HORIZONS}
    index = build(config)
    assert isinstance(index, WindowIndex)
    assert index.horizons == Horizons(obs=3)


def test_components_in_lists_and_plain_dicts_are_built() -> None:
    config = {
        "_target_": "data.spec.DataSpec",
        "obs": {"a": {"_target_": "data.spec.ObsSpec", **vars(ObsSpec((2,), "state", "m", 10.0))}},
        "action": [HORIZONS, {"plain": [1, HORIZONS]}],
        "rate_hz": 10.0,
    }
    spec = build(config)
    assert spec.obs == {"a": ObsSpec((2,), "state", "m", 10.0)}
    assert spec.action == [Horizons(obs=3), {"plain": [1, Horizons(obs=3)]}]


def test_runtime_arguments_reach_the_top_component_only() -> None:
    config = {"_target_": "data.windows.WindowIndex", "horizons": HORIZONS}
    assert len(build(config, episode_ends=[4, 9])) == 9


def test_partial_gives_a_factory_that_takes_the_rest() -> None:
    factory = build({"_target_": "data.spec.Horizons", "_partial_": True, "obs": 3})
    assert isinstance(factory, functools.partial)
    assert factory(pred=5) == Horizons(3, 5)


def test_an_unknown_argument_names_component_key_and_what_is_accepted() -> None:
    with pytest.raises(ValueError, match=r"data\.spec\.Horizons .*'size'.*'obs', 'pred', 'window'"):
        build({"_target_": "data.spec.Horizons", "size": 3})


def test_a_nested_unknown_argument_names_the_nested_component() -> None:
    nested = {"_target_": "data.spec.Horizons", "size": 3}
    config = {"_target_": "data.windows.WindowIndex", "episode_ends": [4], "horizons": nested}
    with pytest.raises(ValueError, match=r"data\.spec\.Horizons does not know"):
        build(config)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(ValueError, match=r"WindowIndex needs \['horizons'\]"):
        build({"_target_": "data.windows.WindowIndex", "episode_ends": [4]})


def test_a_config_cannot_set_what_the_program_sets() -> None:
    with pytest.raises(ValueError, match="set by the program"):
        build(HORIZONS, obs=4)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "datasets.load",
        "data",
        "data..spec",
        "data.results.os.system",
        "data.results.Path",
        "data.results.np",
        "data.spec.Horizons.__init__",
        "data.build._resolve",
        "data.spec.Modality",
        "data.spec.NoSuchThing",
        "data.no_such_module.Thing",
        "",
        7,
        None,
    ],
)
def test_a_target_outside_of_our_own_definitions_is_refused(target: Any) -> None:
    with pytest.raises(ValueError, match="target"):
        build({"_target_": target})


@pytest.mark.parametrize("config", [{}, {"obs": 3}, [], None, "data.spec.Horizons"])
def test_a_config_without_target_is_refused(config: Any) -> None:
    with pytest.raises(ValueError, match="_target_"):
        build(config)


def test_partial_must_be_a_bool() -> None:
    with pytest.raises(ValueError, match="_partial_ must be true or false"):
        build({**HORIZONS, "_partial_": "yes"})


@pytest.mark.parametrize(
    "target", ["data.results.write_results", "policy.export.load_for_acting", "policy.checkpoint.x"]
)
def test_a_component_outside_of_what_is_allowed_is_refused(target: str) -> None:
    config = {
        "_target_": "policy.samplers.ddim.DDIM",
        "eta": {"_target_": target, "path": "anything"},
    }
    with pytest.raises(ValueError, match=r"must lie in one of policy\.samplers"):
        build(config, within=["policy.samplers"])


def test_a_package_whose_name_merely_begins_alike_is_refused() -> None:
    with pytest.raises(ValueError, match="must lie in one of"):
        build({"_target_": "policy.samplers.ddim.DDIM"}, within=["policy.sampler"])
