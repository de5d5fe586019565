"""Real-time iteration whose prior is predicted from the observation and the previous plan."""

from __future__ import annotations

from deploy.controllers.rti import RTIController
from policy.diffusion_policy import DiffusionPolicy
from policy.prior_predictor import load_predictor
from policy.samplers.base import Sampler
from policy.warm_start import WarmStart


class RTILearnedController(RTIController):
    """`RTIController` with a predictor before its warm start (after STEP, arXiv 2602.08245).

        previous plan --shift--> prior --predictor(context, prior)--> --to start_level--> x --> plan

    The predictor is the one that `prise predictor` put into the policy's checkpoint.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        start_level: float = 0.3,
        nfe: int = 1,
        warm_start: WarmStart | str = "renoised",
        cold_steps: int = 10,
        sampler: Sampler | None = None,
        exec_horizon: int = 1,
        discrete: str = "none",
        discrete_factor: float = 10.0,
    ) -> None:
        """As `RTIController`; CheckpointError where the checkpoint has no predictor."""
        super().__init__(
            policy,
            start_level,
            nfe,
            warm_start,
            cold_steps,
            sampler,
            exec_horizon,
            discrete,
            discrete_factor,
        )
        self._warm["predictor"] = load_predictor(policy)
        self._refine = None  # an exported graph of a tick has no place for a predictor
