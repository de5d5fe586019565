"""Frames of an episode as one H.264 video that every browser plays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Frame = NDArray[np.uint8]

GAP, BAR = 4, 24  # [pixels] between cameras; the strip below them
INK, PAPER, DONE, LEFT = (235, 235, 235), (18, 20, 24), (86, 156, 214), (52, 56, 64)


def compose_frame(cameras: Sequence[Frame], insets: Sequence[Frame], text: str, at: float) -> Frame:
    """Square frames side by side, each with its inset, over a strip with a text and a time bar.

    Args:
        cameras: (S, S, 3) each.
        insets: (s, s, 3) each, shown in the top left corner at a quarter of S; may be empty.
        text: In the strip.
        at: Fraction of the episode that has passed, in [0, 1].
    """
    size = len(cameras[0])
    width = len(cameras) * size + (len(cameras) - 1) * GAP
    # libx264 in yuv420p takes even sides alone.
    sheet = Image.new("RGB", (width + width % 2, size + BAR + (size + BAR) % 2), PAPER)
    for index, camera in enumerate(cameras):
        sheet.paste(Image.fromarray(camera), (index * (size + GAP), 0))
    for index, inset in enumerate(insets):
        side = size // 4
        small = Image.fromarray(inset).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(_framed(small), (index * (size + GAP) + 6, 6))
    draw = ImageDraw.Draw(sheet)
    draw.text((6, size + 4), text, fill=INK, font=ImageFont.load_default(13))
    draw.rectangle((0, size, width, size + 2), fill=LEFT)
    draw.rectangle((0, size, round(at * width), size + 2), fill=DONE)
    return np.asarray(sheet)


def write_video(path: Path, frames: Iterable[Frame], rate_hz: float) -> None:
    """Write an mp4 with a key frame every second, so that browsers can jump in it."""
    options = ["-movflags", "+faststart", "-g", str(round(rate_hz)), "-crf", "23"]
    writer: Any = imageio.get_writer(
        path,
        format="FFMPEG",
        fps=rate_hz,
        codec="libx264",
        quality=None,
        pixelformat="yuv420p",
        macro_block_size=2,
        output_params=options,
        ffmpeg_log_level="error",
    )
    with writer:
        for frame in frames:
            writer.append_data(frame)


def _framed(image: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (image.width + 2, image.height + 2), INK)
    sheet.paste(image, (1, 1))
    return sheet
