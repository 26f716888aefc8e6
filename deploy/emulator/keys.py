"""The user's own ADB key: the one that Google's adb uses as well, made if it is not there."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import tempfile
from pathlib import Path

from adb_shell.auth import keygen

from deploy.errors import DeviceError
from deploy.files import write_text

_ENCODED_KEY_BYTES = 524
"""Size of Android's RSA public key structure for 2048 bits: 4 + 4 + 256 + 256 + 4."""


def ensure_key() -> Path:
    """Path of the user's private ADB key, ``~/.android/adbkey``, made if absent (mode 0600).

    ``adbkey.pub`` beside it is made from the private key where it is missing.

    Raises:
        DeviceError: the key cannot be read or written, or the two halves do not belong together.
    """
    private = Path.home() / ".android" / "adbkey"
    try:
        private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not private.exists():
            _generate(private)
        public = public_path(private)
        encoded = base64.b64encode(keygen.encode_pubkey(str(private))).decode("ascii")
        if not public.exists():
            write_text(public, f"{encoded}{keygen.get_user_info()}\n")
    except (OSError, ValueError) as error:
        raise DeviceError(f"cannot make the ADB key: {error}", where=str(private)) from None
    if read_public(public).split()[0] != encoded:
        raise DeviceError(
            f"it is not the public half of {private}",
            where=str(public),
            hint="Remove it; it is then made again",
        )
    return private


def public_path(private: Path) -> Path:
    """Where the public half of a private key lies."""
    return private.with_name(private.name + ".pub")


def _generate(private: Path) -> None:
    # Made in a folder that only the user can enter, then linked: link() never replaces a key that
    # adb (or another pocketship) made in the meantime, and nobody ever sees half a key.
    with tempfile.TemporaryDirectory(prefix=".adbkey-", dir=private.parent) as folder:
        made = Path(folder) / "adbkey"
        keygen.keygen(str(made))
        made.chmod(0o600)
        with contextlib.suppress(FileExistsError):
            os.link(made, private)


def read_public(path: Path) -> str:
    """One line of authorised keys, from a file such as ``adbkey.pub``.

    Raises:
        DeviceError: it is no public ADB key.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DeviceError(f"cannot read the ADB key: {error.strerror}", where=str(path)) from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        encoded, _, owner = lines[0].partition(" ")
        with contextlib.suppress(binascii.Error, ValueError):
            if len(base64.b64decode(encoded, validate=True)) == _ENCODED_KEY_BYTES:
                printable = "".join(c for c in owner if c.isprintable())
                return f"{encoded} {printable}".strip()
    raise DeviceError(
        "not a public ADB key",
        where=str(path),
        hint="Give the file that ends in .pub (adb keygen FILE makes one)",
    )
