"""``report.json`` on disk: written whole, read back only if it is what was written."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from deploy.errors import ConfigError, MeasurementError
from deploy.files import write_text
from deploy.types import REPORT_SCHEMA_VERSION, Report

FILE_NAME = "report.json"
LATEST = "latest"
_SEAL = "content_sha256"
_AGAIN = "Make it again with `pocketship run`, or use another run's."


def write(report: Report, run_folder: Path) -> Path:
    """Write ``report`` to ``run_folder/report.json``, whole or not at all; return the file's path.

    Keys stand in the order of the types, those of free dictionaries sorted, so equal reports are
    equal files. Raises ``MeasurementError`` where a number is not finite (JSON cannot hold it) and
    ``ConfigError`` where the folder cannot be written.
    """
    content = _ordered(report)
    _refuse_not_finite(content, "")
    content[_SEAL] = _seal(content)
    path = run_folder / FILE_NAME
    try:
        write_text(path, _text(content))
    except OSError as error:
        raise ConfigError(
            f"cannot be written ({error.strerror or error})",
            where=str(path),
            hint="Choose a folder that you can write to, with space left.",
        ) from None
    return path


def load(path: Path) -> Report:
    """Read a report that :func:`write` wrote; ``path`` is the file or its run folder.

    Raises ``ConfigError`` for a file that is missing, cut off, edited, or of another schema
    version. An edit is known by the hash in the file: this guards against accidents and
    half-copied files, not against someone who also makes the hash anew.
    """
    file = path / FILE_NAME if path.is_dir() else path
    data = _parse(file)
    version = data.get("schema_version")
    if type(version) is not int or version != REPORT_SCHEMA_VERSION:
        raise ConfigError(
            f"schema_version is {_short(version)}, and this pocketship reads "
            f"{REPORT_SCHEMA_VERSION} only",
            where=str(file),
            hint="Use the pocketship that wrote it, or make the report again.",
        )
    if data.get(_SEAL) != _seal(data):
        raise ConfigError(
            f"was edited after it was written: its content does not fit its {_SEAL}",
            where=str(file),
            hint=_AGAIN,
        )
    try:
        return Report.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ConfigError(
            f"is not a report of pocketship: {_short(key)[1:-1]}: {first['msg']}",
            where=str(file),
            hint=_AGAIN,
        ) from None


def point_latest(run_folder: Path) -> Path:
    """Make ``latest`` beside ``run_folder`` a link to it, in one step; return the link's path.

    Raises ``ConfigError`` where ``latest`` is something else than a link, or cannot be made.
    """
    link = run_folder.parent / LATEST
    temporary = link.with_name(f".{LATEST}.{secrets.token_hex(4)}.tmp")
    if link.exists() and not link.is_symlink():
        raise ConfigError(
            "is not a link, so it is not replaced",
            where=str(link),
            hint="Move it away: pocketship keeps a link to the newest run there.",
        )
    try:
        try:
            temporary.symlink_to(run_folder.name, target_is_directory=True)
            temporary.replace(link)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot be made ({error.strerror or error})",
            where=str(link),
            hint=f"The report itself is in {run_folder}.",
        ) from None
    return link


def _ordered(value: Any) -> Any:
    """JSON types with model fields in their order and free dictionaries sorted."""
    if isinstance(value, BaseModel):
        return {name: _ordered(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): _ordered(item) for key, item in sorted(value.items(), key=_key_text)}
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    if isinstance(value, float):
        return float(value)
    return to_jsonable_python(value, fallback=_scalar)


def _scalar(value: object) -> object:
    # A step's free `detail` may hold NumPy scalars and tensors of one element.
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


def _text(content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # Bytes of a device that were no UTF-8 may stand in text as lone surrogates.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _key_text(item: tuple[Any, Any]) -> str:
    return str(item[0])


def _seal(content: dict[str, Any]) -> str:
    # Over the parsed values, so that a field that a later version adds with a default does not
    # break the files written before it.
    rest = {key: value for key, value in content.items() if key != _SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_not_finite(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_not_finite(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_not_finite(item, f"{path}.{index}")
    elif isinstance(value, float) and value - value != 0:
        raise MeasurementError(
            f"{path} is {value}, which no report can hold",
            where=FILE_NAME,
            hint="Whoever measured it must say `failed` or `invalid` with a reason instead.",
        )


def _parse(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "there is no such report", where=str(file), hint="Name a run folder or a report.json."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror or error})", where=str(file), hint=""
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"is not UTF-8 text at byte {error.start}", where=str(file), hint=_AGAIN
        ) from None
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        end = error.pos >= len(text.rstrip())
        what = "is cut off" if end or error.msg.startswith("Unterminated") else "is not valid JSON"
        raise ConfigError(
            f"{what} ({error.msg})", where=f"{file}:{error.lineno}:{error.colno}", hint=_AGAIN
        ) from None
    except (ValueError, RecursionError) as error:
        what = "is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(what, where=str(file), hint=_AGAIN) from None
    if not isinstance(data, dict):
        raise ConfigError("is not a report of pocketship", where=str(file), hint=_AGAIN)
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has the key {_short(key)} twice in one place")
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"holds {name}, which is not JSON")


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
