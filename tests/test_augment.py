"""Augmentations move or recolour whole windows and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from data.augment import center_crop, color_jitter, gaussian_noise, random_crop, random_shift


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def windows(batch: int = 16, frames: int = 2, height: int = 10, width: int = 12) -> Tensor:
    return torch.randint(256, (batch, frames, height, width, 3), generator=generator(1)).to(
        torch.uint8
    )


def test_a_random_crop_is_a_part_of_the_image_the_same_in_all_frames() -> None:
    images = windows()
    crops = random_crop(images, 8, generator())
    assert crops.shape == (16, 2, 8, 8, 3)
    assert crops.dtype == torch.uint8
    places = set()
    for image, crop in zip(images, crops, strict=True):
        found = [
            (y, x)
            for y in range(3)
            for x in range(5)
            if torch.equal(image[:, y : y + 8, x : x + 8], crop)
        ]
        assert len(found) == 1
        places.update(found)
    assert len(places) > 5


def test_a_crop_of_full_size_changes_nothing() -> None:
    images = windows(height=10, width=10)
    assert torch.equal(random_crop(images, 10, generator()), images)
    assert torch.equal(center_crop(images, 10), images)


def test_a_center_crop_leaves_equal_borders() -> None:
    images = windows()
    assert torch.equal(center_crop(images, 8), images[:, :, 1:9, 2:10])


def test_a_shift_moves_the_image_and_repeats_the_border() -> None:
    images = windows()
    shifted = random_shift(images, 2, generator())
    assert shifted.shape == images.shape
    rows, columns = torch.arange(10), torch.arange(12)
    for image, got in zip(images, shifted, strict=True):
        options = [
            image[:, (rows + y).clamp(0, 9)][:, :, (columns + x).clamp(0, 11)]
            for y in range(-2, 3)
            for x in range(-2, 3)
        ]
        assert any(torch.equal(got, option) for option in options)


def test_no_shift_and_no_jitter_change_nothing() -> None:
    images = windows()
    assert torch.equal(random_shift(images, 0, generator()), images)
    assert torch.equal(color_jitter(images, 0.0, 0.0, generator()), images)


def test_jitter_is_bounded_and_the_same_in_all_frames() -> None:
    still = windows(frames=1).repeat(1, 2, 1, 1, 1)
    jittered = color_jitter(still, 0.1, 0.2, generator())
    assert jittered.dtype == torch.uint8
    assert torch.equal(jittered[:, 0], jittered[:, 1])
    assert (jittered.float() - still.float()).abs().max() <= 0.1 * 255 + 0.2 * 255 + 1
    assert not torch.equal(jittered, still)


def test_noise_has_the_deviation_asked_for() -> None:
    noise = gaussian_noise(torch.zeros(10_000), 0.5, generator())
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)


def test_the_same_generator_gives_the_same_result() -> None:
    images = windows()
    once, again = (
        [
            random_crop(images, 7, generator(seed)),
            random_shift(images, 2, generator(seed)),
            color_jitter(images, 0.1, 0.1, generator(seed)),
        ]
        for seed in (3, 3)
    )
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [0, 11])
def test_a_crop_that_does_not_fit_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        random_crop(windows(), size)


def test_images_without_a_time_axis_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(B, To, H, W, C\)"):
        center_crop(torch.zeros(2, 8, 8, 3), 4)
