"""Which package imports which, read from the sources: python -m scripts.import_graph (Mermaid)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("compress", "deploy")
# Nouns, failures, paths and parsers are used everywhere; arrows to them would hide the others.
LEAVES = frozenset({"types", "errors", "files", "paths", "android_text", "protobuf", "strict_yaml"})
ROOMS = {
    "commands": frozenset(
        {"cli", "commands", "console", "device_list", "doctor", "history_commands"}
        | {"packing", "sharing"}
    ),
    "run_folder": frozenset({"config", "connect", "nearby", "provenance", "stored", "workspace"}),
}

Edges = dict[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of ours."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _targets(node: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names) of each import; names are empty for ``import module``."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, ()
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = module.split(".") if is_package else module.split(".")[:-1]
            parents = parents[: len(parents) - node.level + 1]
            base = ".".join([*parents, base] if base else parents)
        yield base, tuple(alias.name for alias in node.names)


def imports(root: Path) -> Edges:
    """Module -> modules of ours that it imports, wherever in its text it does so."""
    known = modules(root)
    edges: Edges = {}
    for module, path in known.items():
        edges[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            for base, names in _targets(node, module, path.name == "__init__.py"):
                if base.split(".")[0] not in PACKAGES:
                    continue
                # `from deploy import paths` imports the module deploy.paths, not the package.
                submodules = {f"{base}.{name}" for name in names} & known.keys()
                edges[module] |= submodules
                if len(submodules) < len(names) or not names:
                    edges[module].add(base)
        edges[module].discard(module)
    return edges


def _room(module: str) -> str:
    """The box that a module stands in: compress, a subpackage of deploy, or what joins them."""
    first, _, rest = module.partition(".")
    second = rest.partition(".")[0]
    if first == "compress":
        return "compress"
    if second in LEAVES or not second:
        return ""
    return next((room for room, members in ROOMS.items() if second in members), second)


def mermaid(root: Path) -> str:
    """The graph between packages as a Mermaid diagram; equal code gives equal text."""
    arrows = {
        (_room(module), _room(target))
        for module, targets in imports(root).items()
        for target in targets
    }
    lines = [f"  {a} --> {b}" for a, b in sorted(arrows) if a and b and a != b]
    return "\n".join(["```mermaid", "graph TD", *lines, "```"])


def main() -> None:
    """Print the diagram of this checkout."""
    print(mermaid(ROOT))


if __name__ == "__main__":
    main()
