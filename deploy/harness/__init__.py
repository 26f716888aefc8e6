"""Builds the native parts and makes bundles of them: C++ without an NDK, Swift with Xcode."""

from deploy.harness import bundles, ios_simulator
from deploy.harness.adb_daemon import adbd
from deploy.harness.bundles import Bundle
from deploy.harness.toolchain import native_abi
from deploy.types import Progress, silent

__all__ = ["Bundle", "adbd", "bundle", "native_abi"]


def bundle(abi: str, progress: Progress = silent) -> Bundle:
    """The bundle for ``abi``: ``arm64-v8a``, ``x86_64`` or ``ios-simulator``; built once, cached.

    Raises ``DeviceError`` when a compiler, a wheel or a library is missing, or the build fails.
    """
    if abi == ios_simulator.ABI:
        return ios_simulator.bundle(progress)
    return bundles.bundle(abi, progress)
