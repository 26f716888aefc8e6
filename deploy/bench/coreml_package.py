"""What a Core ML package says of itself: its features in their order, and the iOS that it needs.

Core ML gives a model's features as dictionaries, without an order, while our files of inputs and
outputs hold tensors one after another. The order is that of the package's description, which the
converter writes as the program has it. Only these few fields of Apple's published format
(https://apple.github.io/coremltools/mlmodel/) are read, since importing coremltools takes long.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.protobuf import Damaged, fields

MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 1 << 30
"""Of the program without its weights, which lie beside it."""

_MODEL_VERSION, _MODEL_DESCRIPTION = 1, 2
_DESCRIPTION_INPUT, _DESCRIPTION_OUTPUT = 1, 10
_FEATURE_NAME = 1

_NEEDED_IOS = {7: (16,), 8: (17,), 9: (18,)}


@dataclass(frozen=True)
class CoreMLPackage:
    """Names of inputs and outputs in order; ``needed_ios`` is () where nobody knows."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    needed_ios: tuple[int, ...]


def read_package(package: Path) -> CoreMLPackage:
    """Read a ``.mlpackage`` folder. ``ValueError`` where it is none; ``OSError`` passes through."""
    try:
        return _described(_root_model(package))
    except Damaged as error:
        raise ValueError(f"its model is damaged: {error}") from None


def _described(content: memoryview) -> CoreMLPackage:
    version = 0
    inputs: list[str] = []
    outputs: list[str] = []
    for field, value in fields(content):
        if field == _MODEL_VERSION and isinstance(value, int):
            version = value
        elif field == _MODEL_DESCRIPTION and isinstance(value, memoryview):
            for part, feature in fields(value):
                if part in (_DESCRIPTION_INPUT, _DESCRIPTION_OUTPUT):
                    (inputs if part == _DESCRIPTION_INPUT else outputs).append(_name(feature))
    if not inputs or not outputs:
        raise ValueError("its model describes no inputs or no outputs")
    return CoreMLPackage(tuple(inputs), tuple(outputs), _NEEDED_IOS.get(version, ()))


def _root_model(package: Path) -> memoryview:
    manifest = package / "Manifest.json"
    if manifest.stat().st_size > MAX_MANIFEST_BYTES:
        raise ValueError("its Manifest.json is too large")
    try:
        said = json.loads(manifest.read_text(encoding="utf-8"))
        place = PurePosixPath(said["itemInfoEntries"][said["rootModelIdentifier"]]["path"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError("its Manifest.json names no root model") from None
    if place.is_absolute() or ".." in place.parts:
        raise ValueError("its root model lies outside")
    path = package / "Data" / place
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ValueError("its model is too large")
    return memoryview(path.read_bytes())


def _name(feature: int | memoryview) -> str:
    if isinstance(feature, memoryview):
        for field, value in fields(feature):
            if field == _FEATURE_NAME and isinstance(value, memoryview):
                try:
                    return bytes(value).decode("utf-8")
                except UnicodeDecodeError:
                    break
    raise ValueError("its model has a feature without a name")
