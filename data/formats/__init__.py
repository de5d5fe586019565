"""Dataset formats: each module reads or writes one."""

from data.formats.zarr_store import DatasetError, DemoStore, Episode, ZarrWriter, open_zarr

__all__ = ["DatasetError", "DemoStore", "Episode", "ZarrWriter", "open_zarr"]
