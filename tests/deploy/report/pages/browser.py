"""A headless Chromium: found as scripts/setup.sh finds it, watched for whatever pages ask for."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str | None:
    """The distribution's browser, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def started(path: str) -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    # Chromium refuses its sandbox to root; the pages are our own.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page with what it asked for and complained of."""

    def __init__(self, browser: Any, *, width: int = 1100, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.troubles: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.troubles.append(request.url))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", lambda dialog: self.troubles.append(dialog.message))
        self.page.on(
            "console",
            lambda line: self.troubles.append(line.text) if line.type != "log" else None,
        )

    def open(self, file: Path) -> Any:
        self.page.goto(file.as_uri())
        return self.page

    def draw_all(self) -> int:
        """Scroll to every picture and wait until it is drawn; return how many there are."""
        canvases = self.page.locator(".canvas")
        for number in range(canvases.count()):
            canvases.nth(number).scroll_into_view_if_needed()
            canvases.nth(number).locator(".main-svg").first.wait_for(state="attached")
        return int(canvases.count())

    def close(self) -> None:
        self.context.close()
