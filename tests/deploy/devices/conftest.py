"""The native ADB daemon for the tests of the transports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import harness
from deploy.devices.host import HostDevice
from tests.deploy.native_adbd import NativeAdbd, running


@pytest.fixture
def adbd(tmp_path: Path) -> Iterator[NativeAdbd]:
    with running(harness.adbd(HostDevice().profile.abi), tmp_path / "adbd") as daemon:
        yield daemon
