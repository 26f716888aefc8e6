"""Which device and which recipe a figure belongs to, as hashes: the same tomorrow, and private."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from deploy.errors import ConfigError
from deploy.types import DeviceInfo, Tier


def device_sha256(info: DeviceInfo, machine: Mapping[str, str]) -> str:
    """SHA-256 of what makes a device the same one in the next run.

    A real device is its serial. An emulated phone's and a simulator's serial is another one each
    time, and this machine has none: those are what they claim to be, and, unless their clock counts
    instructions, the processor that they compute on, which ``machine`` names.
    """
    if info.tier is Tier.DEVICE:
        return hashlib.sha256(info.serial.encode("utf-8", "backslashreplace")).hexdigest()
    claims = [info.profile, info.model, info.soc, info.abi, info.cpu_count, info.clock]
    if info.clock != "icount":
        claims += [machine.get(name) for name in ("architecture", "cpu", "cpu_count")]
    return hashlib.sha256(json.dumps(claims).encode()).hexdigest()


def recipe_sha256(recipe: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of a recipe's steps with all their settings; empty for a model without a recipe."""
    if not recipe:
        return ""
    text = json.dumps(list(recipe), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def storable(text: str) -> str:
    """``text`` as every database can hold it: NUL and lone surrogates become escapes."""
    kept = text.replace("\0", "\\x00")
    return kept.encode("utf-8", "backslashreplace").decode("utf-8")


def sortable(moment: str) -> str:
    """An ISO 8601 time as ``2026-11-22T15:37:42Z``; without a zone it is taken for UTC."""
    try:
        value = datetime.fromisoformat(moment)
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        raise ConfigError(
            f"'{moment[:40]}' is no time", hint="Write it as 2026-11-22 or 2026-11-22T15:37:42Z."
        ) from None


def now() -> str:
    """This moment."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
