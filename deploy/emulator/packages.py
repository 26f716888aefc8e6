"""Debian packages for the phone: fetched by apt with its signatures checked, then unpacked.

apt runs with a configuration of its own (own lists, own cache, architecture arm64), so nothing on
this machine changes: no foreign architecture is added, no root is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.emulator.apt_sources import Source
from deploy.errors import DeviceError
from deploy.types import Progress

KERNEL_META_PACKAGE = "linux-image-cloud-arm64"
SHELL_PACKAGE = "busybox-static"

_FETCH_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Package:
    """One downloaded package file; ``sha256`` is what the signed index says and apt checked."""

    name: str
    version: str
    sha256: str
    path: Path


def require_tool(name: str, package: str) -> str:
    """Path of a program that must be there.

    Raises:
        DeviceError: it is not; names the Debian/Ubuntu package that has it.
    """
    # mke2fs lies in sbin, which is not in every user's PATH.
    search = os.environ.get("PATH", os.defpath)
    if name == "mke2fs" and search:
        search = os.pathsep.join([search, "/usr/sbin", "/sbin"])
    if found := shutil.which(name, path=search):
        return found
    raise DeviceError(
        f"{name} is not installed, the emulated phone needs it",
        hint=f"Install the package {package}: apt-get install {package}",
    )


class PrivateApt:
    """apt with its own state in ``folder``, for arm64, from ``sources`` only."""

    def __init__(self, folder: Path, sources: Sequence[Source]) -> None:
        self._folder = folder
        self._get = require_tool("apt-get", "apt")
        self._cache = require_tool("apt-cache", "apt")
        for name in ("state/lists/partial", "cache/archives/partial", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        stanzas = "\n".join(source.stanza() for source in sources)
        (folder / "debian.sources").write_text(stanzas, encoding="utf-8")
        (folder / "apt.conf").write_text(self._configuration(), encoding="utf-8")

    def _configuration(self) -> str:
        lines = [
            f'Dir::State "{self._folder}/state";',
            f'Dir::State::status "{self._folder}/status";',
            f'Dir::Cache "{self._folder}/cache";',
            f'Dir::Etc::sourcelist "{self._folder}/debian.sources";',
            f'Dir::Etc::sourceparts "{self._folder}/parts";',
            f'Dir::Etc::parts "{self._folder}/parts";',
            'Dir::Etc::main "/dev/null";',
            'APT::Architecture "arm64";',
            'APT::Architectures "arm64";',
            'APT::Get::AllowUnauthenticated "false";',
            'Acquire::Languages "none";',
            'Acquire::Retries "3";',
        ]
        if os.geteuid() == 0:
            # apt would drop to the user _apt, who may not write here.
            lines.append('APT::Sandbox::User "root";')
        return "\n".join([*lines, *self._machine_network_settings()]) + "\n"

    def _machine_network_settings(self) -> list[str]:
        # Proxies and the like are the machine's; its hooks (and switched-off checks) are not ours.
        tool = shutil.which("apt-config")
        if tool is None:
            return []
        done = subprocess.run([tool, "dump"], capture_output=True, text=True, check=False)
        wanted = re.compile(
            r"Acquire::(https?|ftp)::(Proxy|Proxy-Auto-Detect|Timeout|CaInfo|SslCert|SslKey)\b"
        )
        return [line for line in done.stdout.splitlines() if wanted.match(line)]

    def _run(self, argv: Sequence[str], what: str) -> str:
        environ = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                argv,
                cwd=self._folder / "cache",
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_FETCH_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{what} took more than {_FETCH_TIMEOUT_S:.0f} s") from None
        if done.returncode != 0:
            last = " | ".join(line for line in done.stderr.splitlines() if line[:2] in ("E:", "W:"))
            raise DeviceError(
                f"{what} failed: {(last or done.stderr)[-600:].strip()}",
                hint="Check this machine's Debian package sources and network",
            )
        return done.stdout

    def update(self) -> None:
        """Fetch the package indexes."""
        self._run([self._get, "-q", "update"], "apt-get update for arm64")

    def newest(self, name: str) -> dict[str, str]:
        """Fields of the newest version of package ``name`` (keys in lower case).

        Raises:
            DeviceError: the sources do not have it.
        """
        text = self._run([self._cache, "show", "--no-all-versions", name], f"looking up {name}")
        fields = re.findall(r"^([A-Za-z0-9-]+): *(.*)$", text, flags=re.MULTILINE)
        return {key.lower(): value for key, value in fields}

    def download(self, name: str, into: Path) -> Package:
        """Download the newest version of package ``name`` to the folder ``into``."""
        fields = self.newest(name)
        version, digest = fields.get("version", ""), fields.get("sha256", "")
        if not re.fullmatch(r"[0-9A-Za-z.+:~-]+", version) or not re.fullmatch(r"\w{64}", digest):
            raise DeviceError(f"the package index has no usable entry of {name}")
        for stale in (self._folder / "cache").glob("*.deb"):
            stale.unlink()
        self._run([self._get, "-q", "download", f"{name}={version}"], f"downloading {name}")
        found = sorted((self._folder / "cache").glob("*.deb"))
        if len(found) != 1:
            raise DeviceError(f"apt-get download {name} left {len(found)} files, not one")
        target = into / f"{name}.deb"
        shutil.move(found[0], target)
        return Package(name, version, digest, target)


def kernel_package(apt: PrivateApt) -> str:
    """Name of the package that has the newest cloud kernel (the meta package depends on it)."""
    depends = apt.newest(KERNEL_META_PACKAGE).get("depends", "")
    match = re.match(r"(linux-image-[a-z0-9.+-]+)", depends)
    if match is None:
        raise DeviceError(f"{KERNEL_META_PACKAGE} depends on no kernel image: {depends!r}")
    return match[1]


def unpack(package: Package, into: Path, progress: Progress) -> None:
    """Unpack a package's files under ``into`` (nothing of it is run)."""
    progress(f"unpacking {package.name} {package.version}")
    tool = require_tool("dpkg-deb", "dpkg")
    done = subprocess.run(
        [tool, "-x", str(package.path), str(into)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DeviceError(f"cannot unpack {package.name}: {done.stderr.strip()[-300:]}")
