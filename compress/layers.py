"""Which layers a step works on: by name pattern and type, and what must stay as it is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from compress.errors import CompressError

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Embedding)


def select(
    model: nn.Module,
    layers: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    types: tuple[type[nn.Module], ...] = WEIGHTED,
) -> dict[str, nn.Module]:
    """Modules of ``types`` whose dotted name matches a pattern (``fnmatch``) and no excluded one.

    Raises ``CompressError`` for a pattern that matches no module of those types: a name that was
    mistyped must not pass for a layer that was compressed.
    """
    # A module that is called at two places has two names and is one layer: its first name counts.
    known = {name: module for name, module in model.named_modules() if isinstance(module, types)}
    return {name: known[name] for name in matching(list(known), layers, exclude)}


def matching(known: Sequence[str], layers: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The names that match a pattern of ``layers`` and none of ``exclude``, in their order.

    Raises ``CompressError`` for a pattern that matches no name.
    """
    for field, patterns in (("layers", layers), ("exclude", exclude)):
        for pattern in patterns:
            if pattern == "*" or any(fnmatchcase(name, pattern) for name in known):
                continue
            close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.5) or list(known)[:5]
            raise CompressError(
                f"no layer's name matches '{pattern}'",
                where=field,
                hint=f"There are {', '.join(close) or 'no such layers'}"
                f"{' and others' if len(known) > len(close) else ''}.",
            )
    return [
        name
        for name in known
        if any(fnmatchcase(name, pattern) for pattern in layers)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]


def shared_parameters(model: nn.Module) -> dict[str, list[str]]:
    """Parameters that several modules hold: first name -> all names, in order."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {group[0]: group for group in names.values() if len(group) > 1}
