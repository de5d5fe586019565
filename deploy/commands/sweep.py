"""`prise train -m`: one run for each combination of values, by Hydra's own sweeper and launchers.

prise train -m train.seed=0,1,2 encoder=vision,vision_force
prise train -m train.seed=0,1,2 hydra/launcher=submitit_slurm hydra.launcher.partition=gpu
prise train -m train.seed=0,1,2 hydra/launcher=ray hydra.launcher.ray.init.address=HOST:6379
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from deploy.commands.compose import ConfigError, compose, parse
from deploy.commands.usage import CONFIGS

VERB = "train"
SLURM = "hydra/launcher=submitit_slurm"
# In Hydra's words about a launcher that is not there: the extra that brings it.
EXTRAS = {"hydra/launcher/submitit": "sweep", "hydra/launcher/ray": "sweep-ray"}
LOGGING = ("hydra/job_logging", "hydra/hydra_logging")


def sweep(verb: str, arguments: Sequence[str]) -> int:
    """Run `prise train` once for each combination; the folders of the runs are in `out`.

    All combinations are checked before the first one starts. With `resume=true` runs that are
    there go on, and the others begin.
    """
    if verb != VERB:
        raise ConfigError(f"-m is known to `prise {VERB}` alone, not to `prise {verb}`.")
    overrides = [parse(argument) for argument in arguments]
    swept = [o for o in overrides if o.is_sweep_override() and not o.is_hydra_override()]
    if not swept:
        raise ConfigError("-m needs a key with several values: add key=a,b or key=range(3).")
    slurm = any(o.input_line == SLURM for o in overrides)
    if slurm and shutil.which("srun") is None:
        raise ConfigError(f"{SLURM} submits to Slurm, and there is no `srun` on this machine.")
    fixed = [o for o in overrides if o not in swept and not o.is_hydra_override()]
    base = _check_all(swept, [o.input_line or "" for o in fixed])
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            hydra.multirun(VERB, run_one, [*_settings(base["out"], fixed), *arguments])
        except (HydraException, OmegaConfBaseException) as error:
            said = " ".join(str(error).split())
            hints = [
                f" `.venv/bin/pip install -e '.[{extra}]'` installs it."
                for launcher, extra in EXTRAS.items()
                if f"'{launcher}" in said
            ]
            raise ConfigError(said + "".join(hints)) from error
    return 0


def _check_all(swept: Sequence[Override], fixed: list[str]) -> dict[str, Any]:
    """The config without what is swept; ConfigError where any combination is not one."""
    base = compose(VERB, fixed)
    for override in swept:
        if override.key_or_group == "out":
            raise ConfigError("out cannot be swept: it holds a folder for each run.")
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line}: write the values as {override.key_or_group}=a,b, as "
                "choice(a,b) or as range(3)."
            )
    values = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()] for o in swept
    ]
    for combination in product(*values):
        compose(VERB, [*fixed, *combination])
    return base


def _settings(out: str, fixed: Sequence[Override]) -> list[str]:
    """Overrides of Hydra's own config: a folder for each run, named after what is swept."""
    constant = ",".join(o.key_or_group for o in fixed)
    return [
        *(f"{group}=none" for group in LOGGING),
        f"hydra.sweep.dir={_quoted(out)}",
        "hydra.sweep.subdir=${hydra.job.override_dirname}",
        f"hydra.job.config.override_dirname.exclude_keys=[{constant}]",
    ]


def run_one(_: object) -> None:
    """One run of a sweep, in whatever process the launcher has started for it."""
    from deploy.commands.train import train_policy
    from policy.checkpoint import checkpoint_exists
    from policy.train_loop import LAST

    job = HydraConfig.get()
    GlobalHydra.instance().clear()  # The sweep's own; `compose` makes another.
    out = Path(job.runtime.output_dir)
    config = compose(VERB, [*job.overrides.task, f"out={_quoted(str(out))}"])
    config["resume"] = config["resume"] and checkpoint_exists(out / LAST)
    if train_policy(config).interrupted:
        raise KeyboardInterrupt  # or the next run would begin


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"
