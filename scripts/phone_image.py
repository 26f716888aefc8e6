"""Build the native parts and the emulated phone's image ahead of time, where this machine can.

    python -m scripts.phone_image                  an error when something is missing
    python -m scripts.phone_image --if-possible    say what is missing, and end well

What is cached is not built again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from deploy import harness
from deploy.emulator import image
from deploy.errors import EXIT_INTERRUPTED, PocketshipError
from deploy.types import Progress


def _say(line: str) -> None:
    print(f"phone-image: {line}", flush=True)


def build(progress: Progress) -> Path:
    """Native parts for both architectures, then kernel and RAM disk; gives the image's folder."""
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("native runner for this machine", lambda: harness.bundle("x86_64", progress=progress)),
        ("native runner for ARM64", lambda: harness.bundle("arm64-v8a", progress=progress)),
    )
    for title, step in steps:
        progress(title)
        step()
    progress("kernel and initial RAM disk")
    return image.build(progress=progress).kernel.parent


def main() -> int:
    """Exit code: 0 built or there already, else the error's own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--if-possible", action="store_true", help="a missing part is no error")
    arguments = parser.parse_args()
    try:
        folder = build(_say)
    except PocketshipError as error:
        print(f"phone-image: {error}", file=sys.stderr)
        if arguments.if_possible:
            _say("going on without it; runs say which devices could not take part")
            return 0
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    _say(f"ready: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
