"""The files of noise certificates: written, read back if they are what was written, found again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deploy.errors import ConfigError
from deploy.files import SEAL, check_seal, seal, write_text
from deploy.report.certificates import notes, place
from deploy.report.comparable import Circumstances, reasons
from deploy.types import Certificate

ENDING = ".certificate.json"
VERSION = 1

_AGAIN = "Calibrate again: pocketship calibrate DEVICE."


@dataclass(frozen=True)
class Found:
    """The certificate that holds, or None; ``notes`` say what was passed over, and why."""

    certificate: Certificate | None
    notes: tuple[str, ...] = ()


def find(folder: Path, at: Circumstances) -> Found:
    """The newest certificate in ``folder`` that holds for these circumstances.

    Of a certificate of the same device that does not hold it is said why; so is a file that cannot
    be read. Other devices' certificates are none of anybody's business. ``at.runtime_version`` and
    ``at.os_build`` of None hold for certificates without one alone.
    """
    told: list[str] = []
    holding: list[tuple[str, str, Certificate]] = []
    for path in files(folder):
        try:
            one = read(path)
        except ConfigError as error:
            told.append(f"a certificate is passed over: {error}")
            continue
        why = reasons(place(one), Circumstances(**{**vars(at), "unit": None, "artifact": None}))
        if not why:
            holding.append((one.created_utc, path.name, one))
        elif one.device_sha256 == at.device_sha256 and one.profile == at.profile:
            texts = "; ".join(_in_words(reason.text) for reason in why)
            told.append(f"the certificate {path.name} does not count: {texts}")
    if not holding:
        return Found(None, tuple(told))
    newest = max(holding, key=lambda row: row[:2])[2]
    return Found(newest, (*(f"certificate: {note}" for note in notes(newest)),))


def _in_words(text: str) -> str:
    return text.replace("of base", "then").replace("of head", "now")


def files(folder: Path) -> list[Path]:
    """The certificates' files in a folder, by name; none where there is no such folder."""
    return sorted(folder.glob(f"*{ENDING}")) if folder.is_dir() else []


def file_name(certificate: Certificate) -> str:
    """``<profile>.<format>.t<threads>.<preset>.<part of the device's hash>-<time>...``."""
    stamp = "".join(c for c in certificate.created_utc[:19] if c.isdigit())
    return (
        f"{certificate.profile}.{certificate.format.value}.t{certificate.threads}."
        f"{certificate.preset}.{certificate.device_sha256[:8]}-{stamp}{ENDING}"
    )


def write(certificate: Certificate, folder: Path) -> Path:
    """Write a certificate into ``folder``, whole or not at all; give its path.

    Raises ``ConfigError`` where the folder cannot be written.
    """
    content = certificate.model_dump(mode="json")
    path = folder / file_name(certificate)
    text = json.dumps({**content, SEAL: seal(content)}, indent=1, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text + "\n")
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            hint="Choose another folder with --output, or set POCKETSHIP_DATA.",
        ) from error
    return path


def read(path: Path) -> Certificate:
    """Read a certificate that :func:`write` wrote.

    Raises ``ConfigError`` for a file that is missing, cut off, edited (its hash does not fit: a
    guard against accidents, not against who makes the hash anew) or of another version.
    """
    try:
        data: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "is cut off, or no certificate at all", where=str(path), hint=_AGAIN
        ) from error
    if not isinstance(data, dict) or "figures" not in data:
        raise ConfigError("is no noise certificate", where=str(path), hint=_AGAIN)
    if data.get("schema_version") != VERSION:
        said = ascii(data.get("schema_version"))[:40]
        raise ConfigError(
            f"is a certificate of version {said}, and this pocketship reads {VERSION}",
            where=str(path),
            hint=_AGAIN,
        )
    check_seal(data, data.pop(SEAL, None), where=path, hint=_AGAIN)
    try:
        return Certificate.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:80]
        raise ConfigError(
            f"is no certificate of pocketship: {key}: {first['msg']}",
            where=str(path),
            hint=_AGAIN,
        ) from error
