"""Writing a site: pages from templates, what they share in ``assets/``, nothing half-written."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from deploy.errors import ConfigError
from deploy.files import write_bytes, write_text
from deploy.report.tables import TIERS, plain
from deploy.types import Outcome

INDEX = "index.html"
ASSETS = "assets"
PLOTLY = "plotly.min.js"

_HERE = Path(__file__).resolve().parent
_OWN = ("site.css", "site.js", "plots.js")
_CHUNK_OF_SLUG = 40


@dataclass(frozen=True)
class Link:
    """An entry of the navigation."""

    href: str
    text: str


@functools.cache
def environment() -> jinja2.Environment:
    """Templates in which everything is escaped that was not made here."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["tier_words"] = {str(tier): text for tier, text in TIERS.items()}
    return made


def slugs(names: Iterable[str]) -> dict[str, str]:
    """A file name for each name: lower case letters, digits and hyphens, no two alike."""
    found: dict[str, str] = {}
    for name in names:
        base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_CHUNK_OF_SLUG] or "unnamed"
        slug, number = base, 1
        while slug in found.values():
            number += 1
            slug = f"{base}-{number}"
        found.setdefault(name, slug)
    return found


def tone(outcome: Outcome) -> str:
    """How an outcome is coloured."""
    if outcome in (Outcome.PASS, Outcome.IMPROVED):
        return "good"
    return "bad" if outcome in (Outcome.REGRESSED, Outcome.INVALID) else "open"


def render(
    template: str, *, page: str, title: str, links: Sequence[Link], **content: object
) -> str:
    """One page; ``page`` is its own file name among ``links``."""
    return (
        environment()
        .get_template(template)
        .render(page=page, title=plain(title), links=links, **content)
    )


def write(pages: Mapping[str, str], folder: Path, *, stale: str = "") -> Path:
    """Write ``pages`` and their assets into ``folder``; return the path of its ``index.html``.

    Files that match the pattern ``stale`` and are not among ``pages`` are removed: an earlier
    writing left them. Pages come last, so that none is there without what it needs.
    """
    (folder / ASSETS).mkdir(parents=True, exist_ok=True)
    for name in _OWN:
        write_bytes(folder / ASSETS / name, (_HERE / "assets" / name).read_bytes())
    _copy_plotly(folder / ASSETS / PLOTLY)
    for name, text in pages.items():
        write_text(folder / name, text)
    for old in folder.glob(stale) if stale else ():
        if old.name not in pages:
            old.unlink(missing_ok=True)
    return folder / INDEX


def plotly_source() -> Path:
    """Plotly's script as its package brings it. The package itself is not imported: it is large."""
    found = importlib.util.find_spec("plotly")
    for place in (found.submodule_search_locations or ()) if found else ():
        path = Path(place) / "package_data" / PLOTLY
        if path.is_file():
            return path
    raise ConfigError(
        "the package plotly has no package_data/plotly.min.js",
        hint="Install pocketship's dependencies again: scripts/setup.sh.",
    )


def _copy_plotly(target: Path) -> None:
    source = plotly_source()
    if not (target.is_file() and target.stat().st_size == source.stat().st_size):
        write_bytes(target, source.read_bytes())
