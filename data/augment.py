"""Augmentation of image windows (B, To, H, W, C): one draw a window, the same for all its frames.

What moves between the frames of a window is motion, which a policy must see unchanged.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def random_crop(images: Tensor, size: int, generator: Generator | None = None) -> Tensor:
    """A random square (B, To, size, size, C) of each window."""
    batch, _, height, width, _ = _check(images, size)
    top = _integers(batch, height - size + 1, generator, images.device)
    left = _integers(batch, width - size + 1, generator, images.device)
    return _crop(images, top, left, size)


def center_crop(images: Tensor, size: int) -> Tensor:
    """The middle square (B, To, size, size, C): what evaluation sees instead of `random_crop`."""
    _, _, height, width, _ = _check(images, size)
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, :, top : top + size, left : left + size]


def random_shift(images: Tensor, pixels: int, generator: Generator | None = None) -> Tensor:
    """Images moved by up to `pixels` in each direction, the border repeated.

    Yarats et al. 2021, "Image Augmentation Is All You Need".
    """
    batch, _, height, width, _ = _check(images, 1)
    span = 2 * pixels + 1
    down = _integers(batch, span, generator, images.device) - pixels
    right = _integers(batch, span, generator, images.device) - pixels
    rows = (_range(height, images) + down[:, None]).clamp(0, height - 1)  # (B, H)
    columns = (_range(width, images) + right[:, None]).clamp(0, width - 1)  # (B, W)
    return _pick(images, rows, columns)


def color_jitter(
    images: Tensor, brightness: float, contrast: float, generator: Generator | None = None
) -> Tensor:
    """Contrast times 1 +- `contrast` about the mean, then brightness by +- `brightness` of 255.

    Takes and gives uint8.
    """
    batch = _check(images, 1)[0]
    draws = torch.rand(2, batch, 1, 1, 1, 1, generator=generator, device=images.device) * 2 - 1
    pixels = images.float()
    mean = pixels.mean(dim=(1, 2, 3, 4), keepdim=True)
    pixels = (pixels - mean) * (1 + contrast * draws[0]) + mean + 255 * brightness * draws[1]
    return pixels.round().clamp(0, 255).to(torch.uint8)


def gaussian_noise(x: Tensor, std: float, generator: Generator | None = None) -> Tensor:
    """`x` plus normal noise of `std` [unit of x], for states and wrenches."""
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + std * noise


def _check(images: Tensor, size: int) -> tuple[int, int, int, int, int]:
    if images.ndim != 5:
        raise ValueError(f"images have shape {tuple(images.shape)}, wanted (B, To, H, W, C).")
    batch, frames, height, width, channels = images.shape
    if not 1 <= size <= min(height, width):
        limit = min(height, width)
        raise ValueError(f"crop {size} does not fit images {height}x{width}; use 1 to {limit}.")
    return batch, frames, height, width, channels


def _crop(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    steps = _range(size, images)
    return _pick(images, top[:, None] + steps, left[:, None] + steps)


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels (B, To, h, w, C) at rows (B, h) and columns (B, w) of each window."""
    batch = _range(len(images), images)[:, None, None]
    # Indexed dimensions around a slice come first: (B, h, w, To, C).
    picked = images[batch, :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2, 4)


def _range(length: int, images: Tensor) -> Tensor:
    return torch.arange(length, device=images.device)


def _integers(count: int, high: int, generator: Generator | None, device: torch.device) -> Tensor:
    return torch.randint(high, (count,), generator=generator, device=device)
