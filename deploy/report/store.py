"""``report.json`` and ``gate.json``: written whole, read back only if they are what was written.

Both are sealed: ``content_sha256`` covers everything else in the file. Files of the older schema
versions that :data:`_DOCUMENTS` names are read too; their seal is checked as it was made, then they
become documents of today's version.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from deploy.errors import ConfigError, MeasurementError
from deploy.files import SEAL, check_seal, seal, write_text
from deploy.types import REPORT_SCHEMA_VERSION, GateReport, Report

FILE_NAME = "report.json"
GATE_FILE_NAME = "gate.json"
LATEST = "latest"

Content = TypeVar("Content", Report, GateReport)


@dataclass(frozen=True)
class _Document(Generic[Content]):
    """A kind of sealed file. ``versions`` are those that can be read, the newest last."""

    kind: type[Content]
    file_name: str
    versions: tuple[int, ...]
    noun: str
    command: str
    where: str
    mark: str
    """A key of this kind that the other has not."""

    @property
    def again(self) -> str:
        return f"Make it again with `{self.command}`, or use another run's."


_REPORT = _Document(
    kind=Report,
    file_name=FILE_NAME,
    # Version 2 gave verdicts a tier, the base's figure, the paired evidence and who accepted it.
    versions=(1, REPORT_SCHEMA_VERSION),
    noun="report",
    command="pocketship run",
    where="Name a run folder or a report.json.",
    mark="pipeline",
)
_GATE = _Document(
    kind=GateReport,
    file_name=GATE_FILE_NAME,
    versions=(1,),
    noun="gate report",
    command="pocketship gate",
    where="Name a gate's folder or a gate.json.",
    mark="base",
)
_DOCUMENTS = (_REPORT, _GATE)


def write(content: Report | GateReport, folder: Path) -> Path:
    """Write a report to ``folder/report.json``, a gate's to ``folder/gate.json``; return the path.

    It is written whole or not at all. Keys stand in the order of the types, those of free
    dictionaries sorted, so equal reports are equal files. Raises ``MeasurementError`` where a
    number is not finite (JSON cannot hold it) and ``ConfigError`` where the folder cannot be
    written.
    """
    name = next(one.file_name for one in _DOCUMENTS if isinstance(content, one.kind))
    data = _ordered(content)
    _refuse_not_finite(data, "", name)
    data[SEAL] = seal(data)
    path = folder / name
    try:
        write_text(path, _text(data))
    except OSError as error:
        raise ConfigError(
            f"cannot be written ({error.strerror or error})",
            where=str(path),
            hint="Choose a folder that you can write to, with space left.",
        ) from None
    return path


def load(path: Path) -> Report:
    """Read a report that :func:`write` wrote, of this schema version or an older one.

    ``path`` is the file or its run folder. Raises ``ConfigError`` for a file that is missing, cut
    off, edited, or of a schema version that is not known here. An edit is known by the hash in the
    file: this guards against accidents and half-copied files, not against someone who also makes
    the hash anew.
    """
    file = _file(path, _REPORT)
    return _validated(_REPORT, file, _parse(file, _REPORT))


def load_gate(path: Path) -> GateReport:
    """Read a gate's report, as :func:`load` reads a run's; ``path`` is the file or its folder."""
    file = _file(path, _GATE)
    return _validated(_GATE, file, _parse(file, _GATE))


def load_any(path: Path) -> Report | GateReport:
    """Read whichever of the two lies at ``path``: a folder with one of them, or the file itself.

    A file is known by its content, whatever its name is.
    """
    if not path.is_dir():
        data = _parse(path, _REPORT)
        if _GATE.mark in data:
            return _validated(_GATE, path, data)
        return _validated(_REPORT, path, data)
    there = [one.file_name for one in _DOCUMENTS if (path / one.file_name).exists()]
    if len(there) > 1:
        raise ConfigError(
            f"holds both {' and '.join(there)}", where=str(path), hint="Name one of the files."
        )
    if not there:
        raise ConfigError(
            "holds no report",
            where=str(path),
            hint="Name a run folder with a report.json, or a gate's folder with a gate.json.",
        )
    return load_gate(path) if there == [GATE_FILE_NAME] else load(path)


def _file(path: Path, document: _Document[Any]) -> Path:
    return path / document.file_name if path.is_dir() else path


def _validated(document: _Document[Content], file: Path, data: dict[str, Any]) -> Content:
    _refuse_other_kind(document, file, data)
    _refuse_version(document, file, data.get("schema_version"))
    check_seal(data, data.get(SEAL), where=file, hint=document.again)
    try:
        return document.kind.model_validate({**data, "schema_version": document.versions[-1]})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ConfigError(
            f"is not a {document.noun} of pocketship: {_short(key)[1:-1]}: {first['msg']}",
            where=str(file),
            hint=document.again,
        ) from None


def _refuse_other_kind(document: _Document[Any], file: Path, data: dict[str, Any]) -> None:
    for other in _DOCUMENTS:
        if other is not document and other.mark in data and document.mark not in data:
            raise ConfigError(
                f"is a {other.noun}, not a {document.noun}", where=str(file), hint=document.where
            )


def _refuse_version(document: _Document[Any], file: Path, version: object) -> None:
    if type(version) is int and version in document.versions:
        return
    newest = document.versions[-1]
    reads = (
        f"{document.versions[0]} to {newest}" if len(document.versions) > 1 else f"{newest} only"
    )
    hint = "Make it again: it is no version that ever was."
    if type(version) is int and version > newest:
        hint = "A newer pocketship wrote it: update this one."
    raise ConfigError(
        f"schema_version is {_short(version)}, and this pocketship reads {reads}",
        where=str(file),
        hint=hint,
    )


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


def _refuse_not_finite(value: Any, path: str, file: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_not_finite(item, f"{path}.{key}" if path else key, file)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_not_finite(item, f"{path}.{index}", file)
    elif isinstance(value, float) and value - value != 0:
        raise MeasurementError(
            f"{path} is {value}, which no report can hold",
            where=file,
            hint="Whoever measured it must say `failed` or `invalid` with a reason instead.",
        )


def _parse(file: Path, document: _Document[Any]) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no such {document.noun}", where=str(file), hint=document.where
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror or error})", where=str(file), hint=""
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"is not UTF-8 text at byte {error.start}", where=str(file), hint=document.again
        ) from None
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{_what_is_wrong(error, text)} ({error.msg})",
            where=f"{file}:{error.lineno}:{error.colno}",
            hint=document.again,
        ) from None
    except (ValueError, RecursionError) as error:
        what = "is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(what, where=str(file), hint=document.again) from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"is not a {document.noun} of pocketship", where=str(file), hint=document.again
        )
    return data


def _what_is_wrong(error: json.JSONDecodeError, text: str) -> str:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return "is cut off"
    if error.msg == "Extra data":
        return "goes on behind its end, as where two files became one"
    return "is not valid JSON"


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
