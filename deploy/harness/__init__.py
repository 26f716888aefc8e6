"""Builds the C++ parts and makes bundles of them that run without an NDK."""

from deploy.harness.adb_daemon import adbd
from deploy.harness.bundles import Bundle, bundle
from deploy.harness.toolchain import native_abi

__all__ = ["Bundle", "adbd", "bundle", "native_abi"]
