"""YAML files that people write: strictly read, and one line with file, line and key where wrong."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from deploy.errors import ConfigError, first_line


def parse(path: Path, *, missing: str = "") -> tuple[Any, Any]:
    """The file's values, and its YAML nodes, which know their lines.

    ``missing`` is what to do where there is no such file. Raises ``ConfigError`` as
    :func:`parse_text` does, and for a file that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError("no such file", where=str(path), hint=missing) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=str(path)) from error
    return parse_text(text, path)


def parse_text(text: str, path: Path) -> tuple[Any, Any]:
    """The values and nodes of ``text``; ``path`` is what messages call it.

    Raises ``ConfigError`` for text that is no YAML, and for what YAML lets pass and nobody means: a
    key twice in a mapping, aliases, numbers that are not finite.
    """
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse(tree, path)
        return yaml.safe_load(text), tree
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "no YAML"
        raise ConfigError(f"is not valid YAML: {problem}", where=where) from error
    except RecursionError as error:
        raise ConfigError("is nested too deep", where=str(path)) from error
    except (ValueError, OverflowError) as error:
        # Such as a date with a month 13: YAML's syntax allows it, its value does not exist.
        reason = first_line(error)
        raise ConfigError(f"holds an impossible value: {reason}", where=str(path)) from error


def _refuse(tree: Any, path: Path) -> None:
    """Raise for what YAML lets pass and nobody means: a key twice, an alias, ``.nan``, ``.inf``."""
    seen: set[int] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        where = f"{path}:{node.start_mark.line + 1}"
        if id(node) in seen and not isinstance(node, yaml.ScalarNode):
            # Aliases of aliases grow without bound, or hold themselves.
            raise ConfigError("YAML aliases (&, *) are not allowed", where=where)
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:float":
            if node.value.lstrip("+-").lower() in {".inf", ".nan"}:
                raise ConfigError(f"{node.value} is no finite number", where=where)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            names = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in names:
                        line = key.start_mark.line + 1
                        raise ConfigError(
                            f"the key '{key.value}' appears twice in one mapping",
                            where=f"{path}:{line}",
                        )
                    names.add(key.value)
                nodes += [key, value]


def explain(problem: ValidationError, path: Path, tree: Any, kind: type[BaseModel]) -> ConfigError:
    """The first problem of a file that is no ``kind``: where it is, and what was probably meant."""
    error, count = problem.errors()[0], problem.error_count()
    keys, node = _walk(tree, error["loc"])
    dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
    hint = f"{count - 1} more problem(s) in this file." if count > 1 else ""
    if error["type"] == "extra_forbidden":
        message = "unknown key"
        if close := difflib.get_close_matches(str(keys[-1]), _known_keys(error["loc"], kind), n=1):
            message += f"; did you mean '{close[0]}'?"
    else:
        message = error["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        value = error.get("input")
        if isinstance(value, str | int | float | bool) and error["type"] != "missing":
            message += f" (got {value!r})"
    where = f"{path}:{node.start_mark.line + 1}" if node is not None else str(path)
    return ConfigError(f"{dotted}: {message}", where=where, hint=hint)


def _walk(tree: Any, loc: Sequence[int | str]) -> tuple[list[int | str], Any]:
    """Follow an error's location through the YAML nodes; drops pydantic's union tags from it."""
    keys: list[int | str] = []
    node, found = tree, tree
    for key in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            if key >= len(node.value):
                break
            node = found = node.value[key]
            keys.append(key)
        elif isinstance(node, yaml.MappingNode):
            pairs = {k.value: (k, v) for k, v in node.value}
            if str(key) in pairs:
                found, node = pairs[str(key)]
                keys.append(key)
            elif key == loc[-1]:
                keys.append(key)
    return keys or list(loc), found


def _known_keys(loc: Sequence[int | str], kind: type[BaseModel]) -> list[str]:
    """Every key that any model of such a file knows; close enough for a suggestion."""
    names: set[str] = set()
    schema = kind.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        names |= set(part.get("properties", {}))
    return sorted(names - {str(loc[-1])})
