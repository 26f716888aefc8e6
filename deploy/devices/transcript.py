"""The form of a recording: what stands in a folder that a replay device answers from.

docs/replay.md describes it for users. Everything read here may come from a stranger's bug report:
sizes are limited, names of files are never taken from the content, and content is checked by hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from deploy.types import Model

MANIFEST = "recording.json"
PROFILE = "profile.yaml"
CALLS = "calls.jsonl"
PULLED = "pulled"
MAX_OUTPUT = 1 << 20
MAX_CALLS = 20_000
MAX_CALLS_BYTES = 256 << 20
MAX_PULLED_BYTES = 64 << 20
MAX_PULLED_SUM = 256 << 20

_RANDOM = re.compile(
    # Names of case folders and temporary files: machine, process, its start, chance.
    r"(?<![0-9a-f])[0-9a-f]{12}-[0-9]{1,10}-[0-9]{1,20}-[0-9a-f]{8}(?![0-9a-f])"
    r"|(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])"
)
_Word = Annotated[str, Field(max_length=1 << 16)]
_Text = Annotated[str, Field(max_length=4 * MAX_OUTPUT)]


class Manifest(Model):
    """``recording.json``. ``exit_codes`` are those of the questions, by name."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    pocketship: str
    recorded_utc: str
    profile: str
    exit_codes: dict[str, int] = Field(default_factory=dict)
    redacted: tuple[str, ...] = ()


class Call(Model):
    """One line of ``calls.jsonl``: a call of the agent and its answer, or ``error``.

    Random names are replaced by ``<…>`` as :class:`Names` does. ``pulled`` is the SHA-256 of the
    content, which is the file's name in ``pulled/``.
    """

    kind: Literal["shell", "push", "pull"]
    argv: Annotated[tuple[_Word, ...], Field(max_length=4096)] = ()
    cwd: _Word | None = None
    remote: _Word = ""
    exit_code: int = 0
    stdout: _Text = ""
    stderr: _Text = ""
    pulled: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    error: _Word = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this call from others."""
        return key(self.kind, self.argv, self.cwd, self.remote)


def key(
    kind: str, argv: Sequence[str] = (), cwd: str | None = None, remote: str = ""
) -> tuple[str, ...]:
    """What tells a call from others, its random names replaced."""
    return (kind, *argv, "\0cwd", cwd or "", "\0remote", remote)


class Names:
    """Random names (case folders, temporary files, tokens) to lasting ones and back.

    A random name gets its lasting one from the call in which it is first seen: the hash of that
    call without it, and how often such a call was seen. So a case folder is named after the model
    that is put into it, and the same run again, or a part of it, finds the same names.
    """

    def __init__(self) -> None:
        self._lasting: dict[str, str] = {}
        self._seen: dict[str, int] = {}

    def hide(self, words: Sequence[str]) -> tuple[str, ...]:
        """``words`` of one call with lasting names; new random ones are learnt."""
        new = [
            name for word in words for name in _RANDOM.findall(word) if name not in self._lasting
        ]
        if new:
            masked = "\0".join(_RANDOM.sub("*", word) for word in words)
            digest = hashlib.sha256(masked.encode(errors="replace")).hexdigest()[:12]
            self._seen[digest] = self._seen.get(digest, 0) + 1
            for place, name in enumerate(dict.fromkeys(new)):
                self._lasting[name] = f"<{digest}-{self._seen[digest]}-{place}>"
        return tuple(self.hide_known(word) for word in words)

    def hide_known(self, text: str) -> str:
        """``text`` with lasting names in place of the random ones that were seen before."""
        return _RANDOM.sub(lambda m: self._lasting.get(m.group(), m.group()), text)

    def show(self, text: str) -> str:
        """``text`` with this run's random names in place of the lasting ones."""
        now = {lasting: name for name, lasting in self._lasting.items()}
        return re.sub(r"<[0-9a-f]{12}-\d+-\d+>", lambda m: now.get(m.group(), m.group()), text)
