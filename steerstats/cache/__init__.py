"""The contract between the half that builds caches and the half that analyses them (h5py only, no torch)."""

from steerstats.cache.finite import read_finite
from steerstats.cache.pack import pack
from steerstats.cache.reader import CacheReader, Unit
from steerstats.cache.schema import (
    ARRAYS,
    BY_NAME,
    NOT_DEFINED,
    SCALES,
    SETTINGS,
    VERSION,
    UnitData,
    check_unit,
    content_hash,
)
from steerstats.cache.sidecar import finished_sidecar
from steerstats.cache.verify import Check, verify
from steerstats.cache.writer import create_cache, write_unit

__all__ = [
    "ARRAYS",
    "BY_NAME",
    "NOT_DEFINED",
    "SCALES",
    "SETTINGS",
    "VERSION",
    "CacheReader",
    "Check",
    "Unit",
    "UnitData",
    "check_unit",
    "content_hash",
    "create_cache",
    "finished_sidecar",
    "pack",
    "read_finite",
    "verify",
    "write_unit",
]
