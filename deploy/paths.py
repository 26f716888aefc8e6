"""Where pocketship's own data, its cache and its state are."""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _data(name: str) -> Path:
    # A wheel carries these folders inside the package; a checkout has them at its top.
    packaged = _HERE / "data" / name
    return packaged if packaged.is_dir() else _HERE.parent / name


def profiles_dir() -> Path:
    """Folder of the device profiles that come with pocketship."""
    return _data("device_profiles")


def harness_dir() -> Path:
    """Folder of the C++ sources (runner and ADB daemon)."""
    return _data("android_harness")


def ios_harness_dir() -> Path:
    """Folder of the Swift sources (the runner for the iOS simulator)."""
    return _data("ios_harness")


def cache_dir() -> Path:
    """What can be made again: phone images, bundles, builds. ``POCKETSHIP_CACHE`` overrides it."""
    return _under("POCKETSHIP_CACHE", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """What is running now: phones. ``POCKETSHIP_STATE`` overrides it."""
    return _under("POCKETSHIP_STATE", "XDG_STATE_HOME", ".local/state")


def data_dir() -> Path:
    """What cannot be made again at once: noise certificates. ``POCKETSHIP_DATA`` overrides it."""
    return _under("POCKETSHIP_DATA", "XDG_DATA_HOME", ".local/share")


def _under(own: str, xdg: str, fallback: str) -> Path:
    if override := os.environ.get(own):
        return Path(override).expanduser().resolve()
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / fallback) / "pocketship"
