"""Device profiles: what the YAML files declare, and which one fits a device that answers.

A profile is data. Everything in a file is checked here, so that a typo is one line that names the
file and the key and never a surprise in the middle of a run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from deploy.android_text import printable
from deploy.android_text.power_rails import MAX_RAIL_NAME
from deploy.errors import ConfigError, first_line
from deploy.paths import profiles_dir
from deploy.types import DeviceProfile, EnergySource, Tier

MAX_PROFILE_BYTES = 1 << 20

AUTO = "auto"
"""The profile's name in a pipeline for: the one that the phone's properties choose."""

_ABI = "ro.product.cpu.abi"
_EMULATED = {
    # Android's own emulator (old and new kernel parameters), Cuttlefish, Genymotion, ours.
    "ro.kernel.qemu": "1",
    "ro.boot.qemu": "1",
    "ro.hardware": "ranchu|goldfish|cutf|cutf_cvd|vbox86|qemu-virt",
    "ro.boot.pocketship.icount": "[01]",
}


def load(name_or_path: str | Path) -> DeviceProfile:
    """Load a profile by the name of one that comes with pocketship, or by a path to a YAML file.

    A value with a slash, or one that ends with ``.yaml`` or ``.yml``, is a path. Raises
    ``ConfigError`` with the file and the key.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml")):
        return _read(Path(text).expanduser())
    names = _names()
    if text not in names:
        raise ConfigError(
            f"there is no device profile {text!r}",
            where=str(profiles_dir()),
            hint=f"Known profiles: {', '.join(names)}; or give a path to a YAML file.",
        )
    return _read(profiles_dir() / f"{text}.yaml")


def all_profiles() -> list[DeviceProfile]:
    """Every profile that comes with pocketship, sorted by name."""
    return [_read(profiles_dir() / f"{name}.yaml") for name in _names()]


def match(
    properties: Mapping[str, str], profiles: list[DeviceProfile] | None = None
) -> DeviceProfile | None:
    """The profile whose rules all fit ``properties``; the one with the most rules wins.

    A profile without rules never matches, a phone's never matches an emulator, and an emulator's
    never a phone. Two that fit equally well are a ``ConfigError``: which of the two it is must not
    depend on the order of files.
    """
    emulated = emulated_by(properties) is not None
    fitting = [
        p
        for p in profiles or all_profiles()
        if p.match and (p.tier is Tier.EMULATOR) == emulated and not any(_broken(p, properties))
    ]
    if not fitting:
        return None
    most = max(len(p.match) for p in fitting)
    best = [p for p in fitting if len(p.match) == most]
    if len(best) > 1:
        names = ", ".join(p.name for p in best)
        raise ConfigError(
            f"the profiles {names} fit this device equally well",
            where=str(profiles_dir()),
            hint="Name the profile, or add a rule to one of them.",
        )
    return best[0]


def emulated_by(properties: Mapping[str, str]) -> str | None:
    """The property that gives an emulator away, as ``name=value``; None on a real phone."""
    for name, pattern in _EMULATED.items():
        if re.fullmatch(pattern, properties.get(name, "")):
            return f"{name}={properties[name]}"
    return None


def doubts(profile: DeviceProfile, properties: Mapping[str, str]) -> str:
    """Why the profile may say little or wrong things of this device; empty where it fits.

    A device that says nothing, and a profile without rules, give no reason to doubt.
    """
    if not properties or not profile.match:
        return ""
    broken = ", ".join(_broken(profile, properties))
    if broken:
        return f"the profile {profile.name} was named, but this device has {broken}"
    if profile.tier is Tier.DEVICE and set(profile.match) == {_ABI}:
        return (
            f"no profile knows this phone: {profile.name} declares nothing of its cores, energy "
            "and limits"
        )
    return ""


def _broken(profile: DeviceProfile, properties: Mapping[str, str]) -> Iterator[str]:
    for key, pattern in profile.match.items():
        value = properties.get(key, "")
        if re.fullmatch(pattern, value) is None:
            yield f"{key} {printable(value, 60)!r}"


def _names() -> list[str]:
    folder = profiles_dir()
    if not folder.is_dir():
        raise ConfigError(
            "the folder of device profiles is missing",
            where=str(folder),
            hint="The installation is not whole: install pocketship again.",
        )
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _read(path: Path) -> DeviceProfile:
    where = str(path)
    try:
        if path.stat().st_size > MAX_PROFILE_BYTES:
            raise ConfigError(
                f"a device profile of more than {MAX_PROFILE_BYTES} bytes", where=where
            )
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "this device profile does not exist", where=where, hint="Check the path."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the device profile cannot be read: {error}", where=where) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not a YAML file: {_yaml_problem(error)}", where=where) from None
    if not isinstance(data, dict):
        raise ConfigError("a device profile is a mapping of keys to values", where=where)
    try:
        profile = DeviceProfile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_describe(error), where=where, hint=_HINT) from None
    _check(profile, path)
    return profile


_HINT = "docs/devices.md lists the keys."


def _describe(error: ValidationError) -> str:
    """The first problem with its key path, and how many more there are."""
    problems = error.errors()
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"]) or "(top)"
    if first["type"] == "extra_forbidden":
        text = f"unknown key {key!r}"
    else:
        text = f"{key}: {first['msg']}"
    return text if len(problems) == 1 else f"{text} (and {len(problems) - 1} more)"


def _check(profile: DeviceProfile, path: Path) -> None:
    where = str(path)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", profile.name):
        # The name becomes part of case ids and file names.
        raise ConfigError(
            f"name: {profile.name!r} is not lower-case letters, digits, hyphens and underscores",
            where=where,
            hint="Use a name like pixel-8.",
        )
    if path.parent == profiles_dir() and profile.name != path.stem:
        raise ConfigError(
            f"name: {profile.name!r} is not the file's name {path.stem!r}",
            where=where,
            hint="A profile that comes with pocketship is found by its file's name.",
        )
    for key, pattern in profile.match.items():
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(
                f"match.{key}: {pattern!r} is not a regular expression: {error}", where=where
            ) from None
    if (profile.transport == "emulator") != (profile.emulator is not None):
        raise ConfigError(
            "emulator: needed for transport 'emulator' and for no other", where=where, hint=_HINT
        )
    if profile.transport != "simctl" and profile.simulator is not None:
        raise ConfigError("simulator: for transport 'simctl' only", where=where, hint=_HINT)
    on_this_machine = profile.transport in ("host", "simctl")
    if not on_this_machine and not profile.work_dir.startswith("/"):
        raise ConfigError(f"work_dir: {profile.work_dir!r} is not absolute", where=where)
    if problem := _rails_problem(profile.energy):
        raise ConfigError(f"energy.rails: {problem}", where=where, hint=_HINT)
    if profile.shell_timeout_s <= 0 or profile.case_timeout_s <= 0:
        raise ConfigError("time-outs are seconds above 0", where=where)


def _rails_problem(energy: EnergySource) -> str:
    """What is wrong with the named power rails; empty where nothing is."""
    if energy.rails and energy.source != "power_rails":
        return f"for source 'power_rails' only, not for '{energy.source}'"
    if twice := [name for name, count in Counter(energy.rails).items() if count > 1]:
        return f"{twice[0]!r} appears twice"
    for name in energy.rails:
        # As the trace's reader gives names: others could never be found.
        if not name or name != printable(name, MAX_RAIL_NAME):
            return f"{printable(name, 60)!r} is no name of a power rail"
    return ""


def _yaml_problem(error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is not None and problem:
        return f"{problem}, line {mark.line + 1}"
    return first_line(error)
