"""The native ADB daemon for the tests of the transports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.native_adbd import NativeAdbd, running


@pytest.fixture
def adbd(tmp_path: Path) -> Iterator[NativeAdbd]:
    from deploy import harness

    with running(harness.adbd("x86_64"), tmp_path / "adbd") as daemon:
        yield daemon
