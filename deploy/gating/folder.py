"""A gate's folder: what was asked, every session as it ended, and the result.

::

    reports/gate/<UTC time>/
      asked.json     the two words, the device, the rules' options; where each side was made
      device.json    which device it began on
      sessions/      one sealed file a session, written as it ends
      inputs-*.bin   random inputs, where a side has none of its own
      gate.json      the result, log.txt, .lock
    reports/gate/latest -> <UTC time>
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from deploy import __version__, workspace
from deploy.errors import ConfigError
from deploy.files import SEAL, check_seal, seal, write_text
from deploy.report import comparable, store
from deploy.types import DeviceRun, Format, Model, Outcome, Session

FOLDER = "gate"
_ANEW = "Begin a new gate: the same command without --resume."


class Wanted(Model):
    """The command's words that decide what is measured; two gates with equal ones are the same."""

    base: str
    head: str
    working_folder: str
    pipeline: str | None = None
    device: str | None = None
    serial: str | None = None
    threads: tuple[int, ...] = ()
    preset: str | None = None
    variants: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ()
    stored: bool = False
    history: str | None = None


class Asked(Model):
    """``asked.json``. ``made`` names the run folders that pipelines were made in, by side."""

    schema_version: Literal[1] = 1
    pocketship_version: str
    run_id: str
    created_utc: str
    wanted: Wanted
    made: dict[Literal["base", "head"], str] = Field(default_factory=dict)


@dataclass(frozen=True)
class GateFolder:
    """One gate's folder."""

    root: Path
    asked: Asked

    @property
    def sessions(self) -> Path:
        """Where finished sessions lie."""
        return self.root / "sessions"

    def made(self, side: Literal["base", "head"]) -> Path | None:
        """The run folder in which this gate made that side; None where it made none."""
        place = self.asked.made.get(side)
        return Path(place) if place is not None else None

    def remember(self, side: Literal["base", "head"], run: Path) -> GateFolder:
        """Write down where a side was made, so that ``--resume`` measures the same files."""
        made = {**self.asked.made, side: str(run)}
        asked = self.asked.model_copy(update={"made": made})
        write_text(self.root / "asked.json", asked.model_dump_json(indent=2) + "\n")
        return GateFolder(self.root, asked)


def create(reports: Path, wanted: Wanted) -> GateFolder:
    """A new folder ``<reports>/gate/<UTC time>``; ``ConfigError`` where it cannot be made."""
    parent = reports / FOLDER
    try:
        parent.mkdir(parents=True, exist_ok=True)
        root = workspace.new_folder(parent).resolve()
        asked = Asked(
            pocketship_version=__version__,
            run_id=root.name,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            wanted=wanted,
        )
        write_text(root / "asked.json", asked.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise ConfigError(
            f"cannot write here: {error.strerror}",
            where=str(parent),
            hint="Choose another folder with --reports.",
        ) from error
    return GateFolder(root, asked)


def unfinished(reports: Path, wanted: Wanted) -> GateFolder | None:
    """The newest gate of the same words, if it can go on: one that ended is not begun again.

    INVALID is no end: a lost device leaves sessions to be measured. Raises ``ConfigError`` where
    that gate's result was edited or cut off.
    """
    parent = reports / FOLDER
    for root in sorted(parent.glob("[0-9]*-[0-9]*"), key=workspace.age, reverse=True):
        with contextlib.suppress(ConfigError):
            asked = workspace.read_json(root / "asked.json", Asked)
            if asked.wanted == wanted and asked.pocketship_version == __version__:
                break
    else:
        return None
    ended = (root / store.GATE_FILE_NAME).exists()
    if ended and store.load_gate(root).outcome is not Outcome.INVALID:
        return None
    return GateFolder(root.resolve(), asked)


def keeper(folder: GateFolder) -> Callable[[Session], None]:
    """Write each session the moment that it ends, sealed against accidental edits."""

    def keep(session: Session) -> None:
        content = session.model_dump(mode="json")
        name = f"{session.case.id.replace('/', '_')}.{session.order:03d}.json"
        sealed = {SEAL: seal(content), "session": content}
        text = json.dumps(sealed, indent=1, ensure_ascii=True, allow_nan=False)
        write_text(folder.sessions / name, text + "\n")

    return keep


def sessions(folder: GateFolder) -> list[Session]:
    """Every session that was kept, in order of time.

    Raises ``ConfigError`` for a file that was edited or cut off.
    """
    found = [_session(path) for path in sorted(folder.sessions.glob("*.json"))]
    return sorted(found, key=lambda session: session.order)


def recognise(folder: GateFolder, device: DeviceRun) -> None:
    """Write down which device this gate measures on; the same one when it goes on.

    Raises ``ConfigError`` where the sessions that are there are another device's, or of another
    build of its system.
    """
    path = folder.root / "device.json"
    if not path.is_file():
        workspace.write_json(path, device)
        return
    before = workspace.read_json(path, DeviceRun)
    if why := comparable.device_runs(before, device):
        raise ConfigError(
            "another device than the one that this gate began on: "
            + "; ".join(f"{reason.text}" for reason in why),
            where=str(folder.root),
            hint=_ANEW,
        )


def _session(path: Path) -> Session:
    try:
        data = json.loads(path.read_bytes())
        content, sealed = data["session"], data[SEAL]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError("is cut off, or no session", where=str(path), hint=_ANEW) from None
    check_seal(content, sealed, where=path, hint=_ANEW)
    try:
        return Session.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            f"is no session of this pocketship: {error.errors()[0]['msg']}",
            where=str(path),
            hint=_ANEW,
        ) from None
