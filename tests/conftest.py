"""How the tests share two workers of pytest-xdist, which signals they have, and no deadlines."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# No test fails by a clock: on a machine with other work any example may be slow.
settings.register_profile("pocketship", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pocketship")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported; what tests start inherits it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# `nohup` and a shell's `&` ignore these, for all that is started below them too; tests that
# interrupt what they started would then wait for ever.
for _number, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a long one that begins last would leave a worker idle."""
    marks = ("slow", "soak")
    slow = {item.path for item in items if any(map(item.get_closest_marker, marks))}
    items.sort(key=lambda item: item.path not in slow)
