"""Online windows equal the windows that training reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.dataset import WindowDataset
from data.spec import Horizons, SpecError
from envs.history import ObsHistory
from tests.tiny_store import STORE_SPEC, random_episode, write_store


@pytest.mark.parametrize("horizons", [Horizons(1, 1, 1), Horizons(2, 4, 12), Horizons(4, 8, 33)])
def test_online_windows_equal_the_windows_of_the_dataset(
    tmp_path: Path, horizons: Horizons
) -> None:
    store = write_store(tmp_path / "d", [1, 3, 60, 7])
    dataset = WindowDataset(store, horizons)
    history = ObsHistory(store.spec, horizons)
    window = 0
    for index in range(store.num_episodes):
        episode = store.episode(index)
        history.reset()
        for t in range(len(episode)):
            history.push({key: rows[t] for key, rows in episode.obs.items()})
            wanted = dataset[window]["obs"]
            got = history.windowed()
            assert got.keys() == wanted.keys()
            for key, value in got.items():
                np.testing.assert_array_equal(value, wanted[key].numpy(), strict=True)
            window += 1
    assert window == len(dataset)


def test_copies_stay_and_views_do_not_allocate() -> None:
    history = ObsHistory(STORE_SPEC, Horizons(2, 4, 12))
    rows = random_episode(50, 0).obs
    for t in range(50):
        history.push({key: value[t] for key, value in rows.items()})
        if t == 10:
            kept = history.windowed()
            assert history.windowed(copy=False)["rgb"].base is not None
    np.testing.assert_array_equal(kept["pose"], rows["pose"][9:11])


def test_there_is_no_window_before_the_first_observation() -> None:
    history = ObsHistory(STORE_SPEC, Horizons())
    with pytest.raises(ValueError, match="push"):
        history.windowed()
    history.push({key: rows[0] for key, rows in random_episode(1, 0).obs.items()})
    history.reset()
    with pytest.raises(ValueError, match="push"):
        history.windowed()


def test_a_wrong_observation_is_refused_and_more_keys_are_ignored() -> None:
    history = ObsHistory(STORE_SPEC.select(["wrench"]), Horizons())
    with pytest.raises(SpecError, match="wrench"):
        history.push({"wrench": np.zeros(2, np.float32)})
    history.push({key: rows[0] for key, rows in random_episode(1, 0).obs.items()})
    assert list(history.windowed()) == ["wrench"]
