"""The imports are as docs/architecture.md says, and the structural rules hold.

The table in that page is the only place where allowed imports are written down: it is parsed here.
Each rule is also shown to fail on a small tree that breaks it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from deploy.types import Format
from scripts.import_graph import PACKAGES, Edges, imports, mermaid

ROOT = Path(__file__).resolve().parent.parent
EVERYTHING = "everything of ours"
PIPELINE_MAX_LINES = 149
FORBIDDEN_NAME = re.compile(r"(utils?|helpers?|misc|common)|.*managers?")


def allowed_imports(page: str) -> dict[str, set[str]]:
    """The table of the page: package or module -> what of ours it may import."""
    section = re.search(r"^## Packages and who may import whom$(.*?)^## ", page, re.M | re.S)
    assert section, "docs/architecture.md has lost its section on imports"
    table: dict[str, set[str]] = {}
    for line in section[1].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3 or set(cells[0]) <= set("-: "):
            continue
        owners = re.findall(r"`([\w.]+)`", cells[0])
        for owner in owners:
            table[_full(owner)] = _allowed(cells[2])
    assert len(table) > 10, "the table of docs/architecture.md cannot be read any more"
    return table


def _full(name: str) -> str:
    return name if name.partition(".")[0] in PACKAGES else f"deploy.{name}"


def _allowed(cell: str) -> set[str]:
    text = re.sub(r"\(.*?\)", "", cell).replace("`", "")
    words = {word.strip() for word in text.split(",")}
    if words == {"all"}:
        return {EVERYTHING}
    if words & {"nothing", "nothing of deploy"}:
        return set()
    assert all(re.fullmatch(r"[\w.]+", word) for word in words), f"cannot read: {cell!r}"
    return {_full(word) for word in words}


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def forbidden_imports(edges: Edges, table: dict[str, set[str]]) -> list[str]:
    """Imports that the table does not allow, and modules that it does not know."""
    wrong = []
    for module, targets in sorted(edges.items()):
        owner = max((row for row in table if _within(module, row)), key=len, default=None)
        if owner is None:
            if module != "deploy":
                wrong.append(f"{module} has no row in docs/architecture.md")
                continue
            owner, allowed = module, set()
        else:
            allowed = table[owner]
        if EVERYTHING in allowed:
            continue
        # A package's own modules are its own business; the bare `deploy` holds no rules.
        mine = {owner} if owner != "deploy" else set()
        wrong += [
            f"{module} imports {target}"
            for target in sorted(targets)
            if not any(_within(target, ok) for ok in allowed | mine)
            and not (target == "deploy" and module.startswith("deploy"))
        ]
    return wrong


def cycles(edges: Edges) -> list[str]:
    """Import cycles, each once, as a chain of names."""
    found: dict[frozenset[str], str] = {}
    done: set[str] = set()

    def visit(module: str, chain: list[str]) -> None:
        if module in chain:
            ring = chain[chain.index(module) :]
            found.setdefault(frozenset(ring), " -> ".join([*ring, module]))
            return
        if module in done:
            return
        for target in sorted(edges.get(module, ())):
            visit(target, [*chain, module])
        done.add(module)

    for module in sorted(edges):
        visit(module, [])
    return sorted(found.values())


def forbidden_names(root: Path) -> list[str]:
    """Files and folders named after no concept."""
    return [
        str(path.relative_to(root))
        for folder in (*PACKAGES, "tests", "scripts", "benchmarks", "examples")
        for path in sorted((root / folder).rglob("*"))
        if (path.suffix == ".py" or path.is_dir()) and FORBIDDEN_NAME.fullmatch(path.stem)
    ]


def pipeline_faults(root: Path, names: set[str]) -> list[str]:
    """What makes deploy/pipeline.py more than the picture of the path."""
    path = root / "deploy" / "pipeline.py"
    text = path.read_text(encoding="utf-8")
    faults = []
    if (lines := len(text.splitlines())) > PIPELINE_MAX_LINES:
        faults.append(f"{lines} lines")
    for node in ast.walk(ast.parse(text)):
        compared: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            compared = [node]
        elif isinstance(node, ast.match_case):
            compared = [node.pattern]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            compared = list(node.args) if node.func.attr in {"startswith", "endswith"} else []
        for part in (inner for top in compared for inner in ast.walk(top)):
            if isinstance(part, ast.Constant) and part.value in names:
                faults.append(f"line {part.lineno}: branch on {part.value!r}")
            elif isinstance(part, ast.Attribute) and ast.unparse(part.value) == "Format":
                faults.append(f"line {part.lineno}: branch on {ast.unparse(part)}")
    return faults


def format_and_device_names() -> set[str]:
    """Every name that pipeline.py must not know."""
    profiles = (ROOT / "device_profiles").glob("*.yaml")
    declared = {yaml.safe_load(path.read_text(encoding="utf-8"))["name"] for path in profiles}
    return declared | {value.value for value in Format} | {"adb", "emulator", "host"}


# --- The project ---------------------------------------------------------------------------------


def test_imports_follow_the_table() -> None:
    table = allowed_imports((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
    assert forbidden_imports(imports(ROOT), table) == []


def test_table_says_what_the_design_demands() -> None:
    """The table is data that anyone can edit: the rules that it must keep are fixed here."""
    table = allowed_imports((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
    assert table["compress"] == set()
    leaves = {"deploy.export", "deploy.devices", "deploy.metrics", "deploy.report"}
    for leaf in leaves:
        assert not table[leaf] & (leaves | {EVERYTHING}), leaf
    for noun in ("deploy.types", "deploy.errors"):
        assert not any(_within(target, "deploy") for target in table[noun]), noun


def test_no_import_cycles() -> None:
    assert cycles(imports(ROOT)) == []


def test_names_say_what_is_inside() -> None:
    assert forbidden_names(ROOT) == []


def test_the_picture_of_the_imports_is_current() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert mermaid(ROOT) in page, "paste the output of: python -m scripts.import_graph"


def test_pipeline_is_the_picture_of_the_path() -> None:
    if not (ROOT / "deploy/pipeline.py").exists():
        pytest.skip("deploy/pipeline.py is not written yet")
    assert pipeline_faults(ROOT, format_and_device_names()) == []


# --- The rules themselves, on trees that break them ----------------------------------------------

TABLE = {
    "compress": set[str](),
    "deploy.types": set[str](),
    "deploy.export": {"deploy.types"},
    "deploy.report": {"deploy.types"},
    "deploy.cli": {EVERYTHING},
}


def tree(root: Path, **files: str) -> Path:
    for package in ("compress", "deploy", "deploy/export", "deploy/report"):
        (root / package).mkdir(parents=True, exist_ok=True)
        (root / package / "__init__.py").write_text("")
    (root / "deploy/types.py").write_text("")
    for name, text in files.items():
        (root / f"{name.replace('__', '/')}.py").write_text(text)
    return root


@pytest.mark.parametrize(
    ("place", "text", "target"),
    [
        ("compress__task", "import deploy.types", "deploy.types"),
        ("compress__task", "from deploy import types", "deploy.types"),
        ("compress__task", "def f():\n    from deploy.types import Tier", "deploy.types"),
        ("deploy__export__onnx", "from deploy.report import store", "deploy.report"),
        ("deploy__export__onnx", "from ..report import store", "deploy.report"),
        ("deploy__export__onnx", "from .. import report", "deploy.report"),
        ("deploy__types", "from deploy.export import EXPORTERS", "deploy.export"),
        ("deploy__types", "if TYPE_CHECKING:\n    import deploy.cli", "deploy.cli"),
    ],
)
def test_forbidden_import_is_found(tmp_path: Path, place: str, text: str, target: str) -> None:
    root = tree(tmp_path, **{place: text})
    assert forbidden_imports(imports(root), TABLE) == [
        f"{place.replace('__', '.')} imports {target}"
    ]


def test_allowed_imports_pass(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        deploy__export__onnx="import onnx\nfrom deploy.types import Tier\nfrom . import placement",
        deploy__export__placement="from deploy import types",
        deploy__cli="import compress\nfrom deploy.export import onnx\nfrom deploy import report",
    )
    assert forbidden_imports(imports(root), TABLE) == []
    assert cycles(imports(root)) == []


def test_module_without_a_row_is_found(tmp_path: Path) -> None:
    root = tree(tmp_path, deploy__novelty="")
    assert forbidden_imports(imports(root), TABLE) == [
        "deploy.novelty has no row in docs/architecture.md"
    ]


def test_cycle_is_found(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        deploy__export__a="from deploy.export import b",
        deploy__export__b="from .c import x",
        deploy__export__c="def late():\n    import deploy.export.a",
    )
    assert cycles(imports(root)) == [
        "deploy.export.a -> deploy.export.b -> deploy.export.c -> deploy.export.a"
    ]


@pytest.mark.parametrize("name", ["utils", "helpers", "manager", "device_manager"])
def test_empty_name_is_found(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path, **{f"deploy__export__{name}": ""})
    assert forbidden_names(root) == [f"deploy/export/{name}.py"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("if name == 'onnx':\n    pass", "line 1: branch on 'onnx'"),
        ("x = 1 if f in ('a', 'host') else 2", "line 1: branch on 'host'"),
        ("y = [d for d in ds if d.format is Format.ORT]", "line 1: branch on Format.ORT"),
        ("match f:\n    case 'onnx':\n        pass", "line 2: branch on 'onnx'"),
        ("if name.startswith('onnx'):\n    pass", "line 1: branch on 'onnx'"),
        ("\n" * 150, "150 lines"),
    ],
)
def test_busy_pipeline_is_found(tmp_path: Path, text: str, fault: str) -> None:
    root = tree(tmp_path, deploy__pipeline=text)
    assert pipeline_faults(root, {"onnx", "host"}) == [fault]


def test_table_is_read_as_written() -> None:
    page = "\n".join(
        [
            "## Packages and who may import whom",
            "| package | job | imports of ours |",
            "| --- | --- | --- |",
            "| `compress` | smaller | nothing of `deploy` |",
            "| `deploy.types`, `deploy.errors` | nouns | `compress.errors` (because) |",
            "| `deploy.config`, `cli` | join | all |",
            *(f"| `deploy.p{n}` | p | types, errors |" for n in range(8)),
            "## Next",
        ]
    )
    table = allowed_imports(page)
    assert table["compress"] == set()
    assert table["deploy.errors"] == {"compress.errors"}
    assert table["deploy.cli"] == {EVERYTHING}
    assert table["deploy.p3"] == {"deploy.types", "deploy.errors"}
