"""The training loop: steps, logs, evaluations and saves."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from tqdm import tqdm

from data.dataset import Batch
from data.mixture import Windows
from policy.checkpoint import TrainingState, save_checkpoint
from policy.config import TrainConfig
from policy.interrupt import StopSignal
from policy.metrics import MetricsLog, StepTimer
from policy.processes import all_whole, joint_loss, loss_module, whole
from policy.random_state import pack_random, unpack_random
from policy.train_data import batches
from policy.train_state import TrainState

# Metrics of the checkpoint in a folder, from episodes that run in processes of their own.
Evaluator = Callable[[Path], Mapping[str, float]]

LAST, BEST, SUCCESS = "last", "best", "success"
LOG = logging.getLogger(__name__)


class DivergedError(RuntimeError):
    """Loss or gradients are no longer finite."""


@dataclass(frozen=True)
class TrainSummary:
    """How a run ended; `shares` is the part of the training time that each part of a step took."""

    step: int
    steps: int
    loss: float  # Mean of the last logged interval; NaN before the first.
    best_success: float | None
    best_step: int | None
    seconds: float
    steps_per_second: float
    shares: dict[str, float]
    checkpoint: Path

    @property
    def interrupted(self) -> bool:
        """True where a signal ended the run early."""
        return self.step < self.steps


class TrainLoop:
    """Steps of one run from where its state is; `recipe` is what checkpoints say of the run."""

    def __init__(
        self,
        config: TrainConfig,
        recipe: Mapping[str, Any],
        state: TrainState,
        dataset: Windows,
        run_dir: Path,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.recipe, self.state = config, recipe, state
        self.dataset, self.run_dir, self.accelerator = dataset, run_dir, accelerator
        self.model = loss_module(state.policy, accelerator)
        self.timer = StepTimer()
        # Stays on the device: reading a number there would wait for the step.
        self._loss_sum = torch.tensor(state.progress.unlogged_loss, device=accelerator.device)
        self._grad_norm = torch.zeros((), device=accelerator.device)
        self._saved_step: int | None = state.progress.step or None

    def run(self, evaluator: Evaluator | None = None) -> TrainSummary:
        """Train until the last step or a signal; saved either way."""
        progress, started, first_step = self.state.progress, monotonic(), self.state.progress.step
        bar = tqdm(
            desc="train",
            total=self.config.steps,
            initial=first_step,
            # None: no bar where nobody watches, as in a log file.
            disable=None if self.accelerator.is_main_process else True,
        )
        stream = batches(self.dataset, self.config, first_step, self.accelerator)
        with StopSignal() as stop, self._open_log() as log, bar:
            if self._saved_step is None:
                self._save()
            while not self._finish_step(evaluator, stop, log):
                self._train_step(stream)
                bar.update()
                if self._due(self.config.log_every):
                    self._log(log, bar)
                self.timer.lap("log")
        seconds = monotonic() - started
        if progress.step < self.config.steps and self.accelerator.is_main_process:
            LOG.warning(
                "stopped after step %d of %d, saved in %s; go on with resume=true.",
                progress.step,
                self.config.steps,
                self.run_dir / LAST,
            )
        return self._summary(seconds, (progress.step - first_step) / seconds)

    def _train_step(self, stream: Iterator[Batch]) -> None:
        state, lap = self.state, self.timer.lap
        loaded = next(stream)
        lap("load")
        batch = send_to_device(loaded, self.accelerator.device, non_blocking=True)
        lap("copy")
        loss = joint_loss(self.model(batch, state.noise), batch["valid"], self.accelerator)
        lap("forward")
        self.accelerator.backward(loss)
        lap("backward")
        limit = self.config.clip_norm or math.inf
        self._grad_norm = whole(nn.utils.clip_grad_norm_(state.policy.parameters(), limit))
        for group in state.optimizer.param_groups:
            group["lr"] = self.config.lr_at(state.progress.step)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        lap("optimizer")
        state.ema.update(state.policy)
        lap("ema")
        self._loss_sum += loss.detach()
        state.progress.step += 1
        state.progress.unlogged_steps += 1

    def _finish_step(
        self, evaluator: Evaluator | None, stop: StopSignal, log: MetricsLog | None
    ) -> bool:
        """Save and evaluate where that is due; True at the end of the run."""
        progress = self.state.progress
        stopped = self._stopped(stop)
        ends = stopped or progress.step >= self.config.steps
        evaluates = evaluator is not None and self._due(self.config.eval_every)
        due = ends or evaluates or self._due(self.config.save_every)
        if due and self._saved_step != progress.step:
            self._save()
        self.timer.lap("save")
        if (
            evaluator is None
            or not evaluates
            or stopped
            or progress.evaluated_step == progress.step
        ):
            return ends
        self._evaluate(evaluator, stop, log)
        self.timer.lap("eval")
        return ends or self._stopped(stop)

    def _evaluate(self, evaluator: Evaluator, stop: StopSignal, log: MetricsLog | None) -> None:
        """Evaluate `last/` in the first process; a signal drops it, to be done again on resume."""
        progress, metrics, average = self.state.progress, None, self._average()
        if self.accelerator.is_main_process:
            # What the evaluator draws must not show in the training.
            random = pack_random(self.state.noise)
            metrics = stop.run(lambda: evaluator(self.run_dir / LAST))
            unpack_random(random, self.state.noise)
        self.accelerator.wait_for_everyone()
        if not self._any_process(metrics is not None):
            return
        progress.evaluated_step = progress.step
        if metrics is not None:
            if SUCCESS not in metrics:
                raise ValueError(
                    f"the evaluator gave {sorted(metrics)}; best/ is chosen by {SUCCESS!r}."
                )
            # Among equals the later one: it has seen more data.
            if progress.best_success is None or metrics[SUCCESS] >= progress.best_success:
                progress.best_success, progress.best_step = metrics[SUCCESS], progress.step
                self._write(BEST, average, None)
            assert log is not None
            log.write(progress.step, {"eval": dict(metrics)})
        # Again, with the result: a run that is resumed here must not evaluate twice.
        self._save()

    def _log(self, log: MetricsLog | None, bar: Any) -> None:
        """Write a row; the only place where a step's numbers are waited for."""
        progress = self.state.progress
        total, norm = self._finite_numbers()
        progress.loss = total / progress.unlogged_steps
        steps, progress.unlogged_steps, progress.unlogged_loss = progress.unlogged_steps, 0, 0.0
        self._loss_sum.zero_()
        parts = self.timer.take_interval()
        row = {
            "loss": progress.loss,
            "grad_norm": norm,
            "lr": self.config.lr_at(progress.step - 1),
            "timing": {part: round(seconds / steps, 6) for part, seconds in parts.items()},
        }
        bar.set_postfix(loss=f"{progress.loss:.4f}", refresh=False)
        LOG.info("step %d of %d: loss %.4f", progress.step, self.config.steps, progress.loss)
        if log is not None:
            log.write(progress.step, row)

    def _finite_numbers(self) -> tuple[float, float]:
        """Summed loss (mean over processes) and gradient norm, or DivergedError."""
        total = float(self.accelerator.reduce(self._loss_sum.clone(), "mean"))
        norm = float(self._grad_norm)
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise DivergedError(
                f"by step {self.state.progress.step} loss ({total}) or gradient norm ({norm}) is "
                f"not finite; {self.run_dir / LAST} holds step {self._saved_step}. Lower train.lr "
                "or look for bad values in the dataset."
            )
        return total, norm

    def _save(self) -> None:
        """Write `last/`, in all processes at once."""
        self.state.progress.unlogged_loss, _ = self._finite_numbers()
        self._write(LAST, self._average(), self.state.pack())
        self._saved_step = self.state.progress.step
        self.accelerator.wait_for_everyone()

    def _average(self) -> dict[str, Tensor]:
        """The weights that are deployed; all processes must ask."""
        return all_whole(self.state.ema.weights(self.state.policy))

    def _write(self, name: str, weights: dict[str, Tensor], state: TrainingState | None) -> None:
        if self.accelerator.is_main_process:
            policy = self.state.policy
            save_checkpoint(
                self.run_dir / name,
                self.recipe["policy"],
                policy.spec,
                policy.horizons,
                weights,
                state,
                self.recipe["train"],
            )

    def _due(self, every: int) -> bool:
        """True every `every` steps and after the last one; never for 0."""
        step = self.state.progress.step
        return every > 0 and step > 0 and (step % every == 0 or step == self.config.steps)

    def _stopped(self, stop: StopSignal) -> bool:
        """True where any process was told to stop; all processes agree."""
        if self.accelerator.num_processes == 1:
            return stop.requested
        # Asking the others waits for the GPU, so not after every step.
        if not (self._due(self.config.log_every) or self._due(self.config.eval_every)):
            return False
        return self._any_process(stop.requested)

    def _any_process(self, flag: bool) -> bool:
        """True where `flag` is True in any process; all of them must ask."""
        if self.accelerator.num_processes == 1:
            return flag
        told = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, "sum") > 0)

    def _open_log(self) -> MetricsLog | nullcontext[None]:
        if not self.accelerator.is_main_process:
            return nullcontext()
        return MetricsLog(self.run_dir, self.state.progress.step)

    def _summary(self, seconds: float, steps_per_second: float) -> TrainSummary:
        progress = self.state.progress
        return TrainSummary(
            step=progress.step,
            steps=self.config.steps,
            loss=math.nan if progress.loss is None else progress.loss,
            best_success=progress.best_success,
            best_step=progress.best_step,
            seconds=seconds,
            steps_per_second=steps_per_second,
            shares=self.timer.shares(),
            checkpoint=self.run_dir / (LAST if progress.best_step is None else BEST),
        )
