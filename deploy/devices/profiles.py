"""Device profiles: what the YAML files declare, and which one fits a device that answers.

A profile is data. Everything in a file is checked here, so that a typo is one line that names the
file and the key and never a surprise in the middle of a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from deploy.errors import ConfigError, first_line
from deploy.paths import profiles_dir
from deploy.types import DeviceProfile

MAX_PROFILE_BYTES = 1 << 20


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

    A profile without rules never matches. Two that fit equally well are a ``ConfigError``: which of
    the two it is must not depend on the order of files.
    """
    fitting = [p for p in profiles or all_profiles() if p.match and _fits(p, properties)]
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


def _fits(profile: DeviceProfile, properties: Mapping[str, str]) -> bool:
    return all(
        re.fullmatch(pattern, properties.get(key, "")) is not None
        for key, pattern in profile.match.items()
    )


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
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", profile.name):
        # The name becomes part of case ids and file names.
        raise ConfigError(
            f"name: {profile.name!r} is not lower-case letters, digits and hyphens",
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
    if profile.shell_timeout_s <= 0 or profile.case_timeout_s <= 0:
        raise ConfigError("time-outs are seconds above 0", where=where)


def _yaml_problem(error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is not None and problem:
        return f"{problem}, line {mark.line + 1}"
    return first_line(error)
