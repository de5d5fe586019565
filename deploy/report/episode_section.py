"""Episodes to watch: both cameras beside force and height, with a cursor that follows the video."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.report.figures import OBS, Arm
from deploy.report.html import data_uri, element, escape, section
from deploy.report.plots import Marker, Plot, Series, render
from deploy.report.run_files import ShownEpisode


def episode_section(episodes: Sequence[ShownEpisode]) -> str:
    """All shown episodes; those of one seed stand next to each other."""
    if not episodes:
        return ""
    seeds = {episode.about["seed"] for episode in episodes[:2]}
    intro = ""
    if len(seeds) < len(episodes[:2]):
        intro = (
            f"The first two are the same episode, seed {seeds.pop()}: the same cell, glue and "
            "friction. Only what the policy observes differs."
        )
    note = (
        "The episodes of the evaluation, repeated action by action and drawn again; the small "
        "picture in the corner is what the policy sees. Forces are what the wrist sensor says."
    )
    cards = element("div", "".join(_card(e) for e in episodes), cls="episodes")
    words = element("p", escape(f"{intro} {note}".strip()))
    return section("Episodes", words, cards)


def _card(episode: ShownEpisode) -> str:
    about = episode.about
    kind = "good" if about["success"] else "bad"
    badge = element("span", escape(about["outcome"].replace("_", " ")), cls=f"badge {kind}")
    arm = Arm(about["obs"], about["controller"], about["wire"])
    title = element("h3", f"{escape(OBS.get(arm.obs, arm.obs))} {badge}")
    video = element(
        "video",
        "",
        controls="",
        loop="",
        muted="",
        autoplay="",
        playsinline="",
        id=f"video-{episode.name}",
        src=data_uri(episode.video, "video/mp4"),
    )
    metrics = about["metrics"]
    facts = f"{arm.way} · seed {about['seed']} · {metrics.get('duration_s', 0):.1f} s"
    if "peak_force_n" in metrics:
        facts += f" · peak force {metrics['peak_force_n']:.1f} N"
    if metrics.get("released"):
        facts += f" · travelled on for {metrics.get('overtravel_mm', 0):.2f} mm after release"
    else:
        facts += " · the cell was not released"
    caption = element("p", escape(facts), cls="note")
    return element("article", title + video + caption + _plots(episode), cls="episode")


def _plots(episode: ShownEpisode) -> str:
    trace, follows = episode.trace, f"video-{episode.name}"
    markers = [Marker(float(at), name) for name, at in trace["events"].items()]
    force = Plot(
        [
            Series(trace["force_t"], trace["force"], "|F|", 0),
            Series(trace["force_t"], trace["fz"], "Fz, tool frame", 1, faint=True),
        ],
        "time [s]",
        "force [N]",
        markers=markers,
        follows=follows,
    )
    height = Plot(
        [Series(trace["t"], trace["height_mm"], "", 2)],
        "time [s]",
        "height of the blade's tip [mm]",
        markers=markers,
        follows=follows,
    )
    return render(force) + render(height)
