"""What each step of the demo does; all of them leave files in the run's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.results import print_table, write_results
from deploy.demo.plan import (
    BENCH,
    DATA,
    LOGS,
    ROS2,
    Plan,
    config_file,
    controller_config,
    quoted,
    say,
    training_arguments,
)
from deploy.demo.summary import all_rows, facts, short
from deploy.report.run_files import COLLECT, FACTS, RESULTS, RUNS, read_json, write_json

if TYPE_CHECKING:  # Imports wait for the step that needs them: a demo that is done ends at once.
    from envs.base import EnvFactory


def collect(plan: Plan) -> None:
    """Demonstrations of the expert."""
    from data.build import build
    from data.formats.zarr_store import open_zarr
    from envs.collect import collect as collect_demonstrations

    settings = plan.config["collect"]
    expert = {"_target_": "envs.pry.expert.PryExpert", "_partial_": True}
    summary = collect_demonstrations(
        build(plan.config["env"]),
        build(expert),
        plan.run / DATA,
        settings["episodes"],
        workers=settings["workers"],
        seed0=settings["seed0"],
    )
    store = open_zarr(plan.run / DATA)
    about = {
        "episodes": store.num_episodes,
        "steps": store.num_steps,
        "sim_seconds": store.num_steps / store.spec.rate_hz,
        "seed_first": int(store.seeds.min()),
        "seed_last": int(store.seeds.max()),
        "failed_seeds": list(summary.failed_seeds),
        "realtime_factor": summary.realtime_factor,
        "workers": settings["workers"],
        "image_size": plan.config["env"]["kwargs"]["image_size"],
    }
    write_json(plan.run / COLLECT, about)


def train(plan: Plan) -> None:
    """All policies at the same time, one thread each."""
    from deploy.demo.training import TrainingJob, train_together

    jobs = [
        TrainingJob(
            obs, training_arguments(plan, obs), plan.run / RUNS / obs, plan.config["train"]["steps"]
        )
        for obs in plan.config["evaluate"]["controllers"]
    ]
    train_together(jobs, plan.run / LOGS)


def evaluate(plan: Plan) -> None:
    """Each arm on the same unseen seeds; an arm that is there already is kept."""
    from data.formats.zarr_store import open_zarr
    from deploy.commands.simulation import matching_env
    from policy.checkpoint import open_checkpoint

    seen = set(open_zarr(plan.run / DATA).seeds.tolist())
    for part in ("evaluate", "ros2"):
        if both := seen & set(plan.seeds(part)):
            raise ValueError(
                f"seed {min(both)} of {part} was used for training; raise {part}.seed0 above "
                f"{max(seen)}."
            )
    missing = [arm for arm in plan.arms if not plan.episodes(*arm).is_file()]
    if missing:
        # All policies are trained on the same data, so one environment fits all.
        env = matching_env(plan.config["env"], open_checkpoint(plan.checkpoint(missing[0][0])).spec)
    for arm in missing:
        say(f"      {arm[0]}, {arm[1]} ({plan.arms.index(arm) + 1} of {len(plan.arms)})")
        _evaluate_arm(plan, arm, env)


def _evaluate_arm(plan: Plan, arm: tuple[str, str], env: EnvFactory) -> None:
    from deploy.agent import AgentFactory
    from deploy.commands.simulation import result_rows
    from envs.evaluate import evaluate as run_episodes
    from policy.checkpoint import open_checkpoint

    obs, controller = arm
    seeds = plan.arm_seeds(controller)
    settings, checkpoint = plan.config["evaluate"], plan.checkpoint(obs)
    spec = open_checkpoint(checkpoint).spec
    agent = AgentFactory(checkpoint, controller_config(controller), 1, settings["delay"])
    # The episodes to be shown are chosen later, among those whose actions are kept.
    kept = len(seeds) if arm in plan.shown_arms else 0
    workers = settings["workers"]
    results = run_episodes(env, agent, seeds, workers=workers, record=kept)
    context = {
        "task": spec.task,
        "split": plan.config["env"]["kwargs"]["split"],
        "obs": obs,
        "controller": controller,
        "wire": "lockstep",
        "delay": settings["delay"],
        "workers": workers,
        "threads": 1,
    }
    path = plan.episodes(*arm)
    write_results(path.with_name(RESULTS), "demo", result_rows(results, context), seeds)
    episodes = [
        {
            "obs": obs,
            "controller": controller,
            "seed": result.seed,
            "success": result.success,
            "outcome": result.outcome,
            "metrics": result.metrics,
            "actions": [] if result.trace is None else result.trace["action"].tolist(),
        }
        for result in results
    ]
    write_json(path, episodes)


def ros2(plan: Plan) -> None:
    """The first arm over ROS 2, as two processes in wall-clock time."""
    from deploy.commands.simulation import outcome_rows
    from deploy.ros2.rows import session_rows
    from deploy.ros2.session import SessionConfig, run_session

    obs, controller = plan.arms[0]
    robot = config_file("robot/ros2")
    config = SessionConfig(
        checkpoint=plan.checkpoint(obs).absolute(),
        controller=controller_config(controller),
        env=plan.config["env"],
        policy_robot=robot,
        sim_robot=config_file("robot/sim_ros2"),
        episodes=plan.config["ros2"]["episodes"],
        seed0=plan.config["ros2"]["seed0"],
    )
    result = run_session(config, (plan.run / ROS2).absolute())
    context = {"obs": obs, "controller": controller, "threads": robot["torch_threads"]}
    context |= {"split": plan.config["env"]["kwargs"]["split"]}
    outcomes = [episode.outcome for episode in result.episodes]
    rows = [*session_rows(result, context), *outcome_rows(outcomes, {**context, "wire": "ros2"})]
    write_results(plan.run / ROS2 / RESULTS, "demo", rows, plan.seeds("ros2"))


def bench(plan: Plan) -> None:
    """Latency of the parts of a tick, with nothing else running."""
    from deploy.demo.training import run_child

    obs, _ = plan.arms[0]
    arguments = [
        "bench",
        "what=tick",
        f"checkpoint={quoted(plan.checkpoint(obs))}",
        f"dataset.path={quoted(plan.run / DATA)}",
        f"rounds={plan.config['bench']['rounds']}",
        f"out={quoted(plan.run / BENCH)}",
    ]
    run_child(arguments, plan.run / LOGS / "bench.log")


def replay(plan: Plan) -> None:
    """Video and force of the episodes that teach most."""
    from deploy.demo.replay import Recorded, choose, show

    arms = {
        arm: [Recorded(**raw) for raw in read_json(plan.episodes(*arm))] for arm in plan.shown_arms
    }
    show(choose(arms), plan.config["env"], plan.run, "lockstep")


def report(plan: Plan) -> None:
    """All rows in one `results.json`, and the page."""
    from deploy.report.page import write_report

    rows = all_rows(plan)
    write_json(plan.run / FACTS, facts(plan))
    seeds = [*plan.seeds("evaluate"), *plan.seeds("ros2")]
    write_results(plan.run / RESULTS, "demo", rows, seeds)
    say("")
    print_table(short(rows))
    write_report(plan.run)
