"""Which of this machine's apt sources can serve Debian's arm64 packages.

The phone's kernel and shell are Debian packages. They come through whatever mirror this machine
already uses, so no host is named here. Third-party sources are left out: they have no
arm64 kernel and would only make the update fail.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import DeviceError

MIRROR_VARIABLE = "POCKETSHIP_DEBIAN_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEFAULT_SUITE = "bookworm"

_ALIASES = {"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid"}
_CODENAMES = {"bookworm", "trixie", "forky"}
_POCKETS = re.compile(r"(-updates|-security|-proposed-updates|-backports|/updates)$")


@dataclass(frozen=True)
class Source:
    """One binary package source: where, which suites, and whose signature it must carry.

    ``signed_by`` is a keyring's path, fingerprints, or a whole armoured key (several lines).
    """

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def stanza(self) -> str:
        """This source for arm64 as a deb822 stanza; options that switch checks off are dropped."""
        lines = [
            "Types: deb",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
            "Components: main",
            "Architectures: arm64",
        ]
        if self.signed_by:
            head, *rest = self.signed_by.split("\n")
            lines.append(f"Signed-By: {head}".rstrip())
            lines.extend(f" {line}" for line in rest)
        return "\n".join(lines) + "\n"


def parse_list(text: str) -> list[Source]:
    """Read one-line sources (``sources.list``); ``deb-src`` and unreadable lines are skipped."""
    sources = []
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        match = re.match(r"deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)$", line)
        if not match:
            continue
        options = dict(part.split("=", 1) for part in (match[1] or "").split() if "=" in part)
        signed_by = options.get("signed-by", "").replace(",", " ")
        sources.append(Source((match[2],), (match[3],), tuple(match[4].split()), signed_by))
    return sources


def parse_deb822(text: str) -> list[Source]:
    """Read deb822 sources (``*.sources``); disabled and source-only stanzas are skipped."""
    sources = []
    for fields in _stanzas(text):
        disabled = fields.get("enabled", "yes").lower() in {"no", "false", "0", "off", "without"}
        if disabled or "deb" not in fields.get("types", "").split():
            continue
        uris = tuple(fields.get("uris", "").split())
        suites = tuple(fields.get("suites", "").split())
        components = tuple(fields.get("components", "").split())
        if uris and suites:
            sources.append(Source(uris, suites, components, fields.get("signed-by", "")))
    return sources


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    key = ""
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, key = {}, ""
        elif line.startswith("#"):
            continue
        elif line[0] in " \t":
            if key:
                fields[key] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            fields[key] = value.strip()


def is_debian(source: Source, *, machine_is_debian: bool) -> bool:
    """Whether ``source`` is Debian's own archive (or a mirror of it) with the component ``main``.

    Its signature decides: Debian's keyring, or, on a Debian machine, none named (apt then takes
    Debian's). The suite must be a Debian release as well, since third parties use both loosely.
    """
    if "main" not in source.components:
        return False
    if not all(_POCKETS.sub("", suite) in _CODENAMES | _ALIASES for suite in source.suites):
        return False
    if source.signed_by:
        return "debian-archive" in source.signed_by
    return machine_is_debian


def debian_sources(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> list[Source]:
    """Sources to get the phone's packages from.

    Args:
        root: where ``etc/apt`` and ``etc/os-release`` lie.
        environ: ``POCKETSHIP_DEBIAN_MIRROR`` there, a URL, replaces what the machine has.

    Raises:
        DeviceError: there is none, or the variable is not one URL.
    """
    keyring = root / KEYRING.relative_to("/")
    if mirror := environ.get(MIRROR_VARIABLE, ""):
        if not re.fullmatch(r"(https?|file)://\S+", mirror):
            raise DeviceError(f"{mirror!r} is not a URL", where=MIRROR_VARIABLE)
        if not keyring.is_file():
            raise DeviceError(
                f"no {KEYRING} to check the mirror's signatures with",
                where=MIRROR_VARIABLE,
                hint="Install the package debian-archive-keyring",
            )
        return [Source((mirror,), (DEFAULT_SUITE,), ("main",), str(keyring))]
    machine_is_debian = _machine_is_debian(root)
    found = []
    for source in _machine_sources(root):
        if is_debian(source, machine_is_debian=machine_is_debian):
            signed_by = source.signed_by or (str(keyring) if keyring.is_file() else "")
            found.append(Source(source.uris, source.suites, ("main",), signed_by))
    if not found:
        raise DeviceError(
            "no Debian package source on this machine for the emulated phone's kernel",
            hint=f"Install debian-archive-keyring, set {MIRROR_VARIABLE} to a Debian mirror's URL",
        )
    return found


def _machine_sources(root: Path) -> list[Source]:
    apt = root / "etc/apt"
    folder = apt / "sources.list.d"
    sources = []
    for path in [apt / "sources.list", *sorted(folder.glob("*.list"))]:
        if path.is_file():
            sources += parse_list(path.read_text(encoding="utf-8", errors="replace"))
    for path in sorted(folder.glob("*.sources")):
        sources += parse_deb822(path.read_text(encoding="utf-8", errors="replace"))
    return sources


def _machine_is_debian(root: Path) -> bool:
    release = root / "etc/os-release"
    if not release.is_file():
        return False
    lines = release.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.strip().replace('"', "") == "ID=debian" for line in lines)
