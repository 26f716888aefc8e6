"""Run the gate's own benchmark, write the page and the JSON, print targets beside figures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gate import page, phone, simulated
from deploy.errors import PocketshipError
from deploy.files import write_text

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/benchmarks/gate.md"
DATA = ROOT / "docs/benchmarks/gate.json"
BEGIN, END = "<!-- begin: written by make bench-gate -->", "<!-- end -->"
DEVICES = 2000
SEED = 20260


def main() -> int:
    """The command line; exit code 0 where every target is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--devices", type=int, default=DEVICES, help="simulated devices a kind")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--phone", action="store_true", help="the part on the emulated phone, and only that"
    )
    parser.add_argument("--fresh", action="store_true", help="the phone's part from its beginning")
    parser.add_argument("--comparisons", type=int, default=phone.COMPARISONS)
    parser.add_argument("--out", type=Path, help="folder for gate.md and gate.json")
    asked = parser.parse_args()
    if asked.devices < 1 or asked.comparisons < 1:
        parser.error("--devices and --comparisons must be at least 1")
    where = asked.out or PAGE.parent
    data: dict[str, Any] = {}
    source = where / DATA.name
    if source.is_file():
        data = json.loads(source.read_text(encoding="utf-8"))
    if asked.phone:
        rows = [] if asked.fresh else data.get("phone", {}).get("rows", [])

        def keep(rows: list[phone.Row]) -> None:
            data["phone"] = {"comparisons": asked.comparisons, "rows": rows}
            save(source, data)

        try:
            phone.run(asked.comparisons, say, done=rows, keep=keep)
            keep(rows)
        except PocketshipError as error:
            print(f"bench: error: {error}", file=sys.stderr)
            return error.exit_code
    else:
        say("simulated devices, some minutes")
        data["simulated"] = simulated.run(asked.devices, asked.seed)
        save(source, data)
    write(where / PAGE.name, data)
    return report(data)


def save(path: Path, data: dict[str, Any]) -> None:
    """The JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def say(line: str) -> None:
    """Progress, apart from the targets on stdout."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def write(path: Path, data: dict[str, Any]) -> None:
    """Put the measured part between the page's two marks; what people wrote stays."""
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# The gate\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    lines = ["", *page.legend(), ""]
    lines += ["| target | reached | |", "| --- | --- | --- |"]
    lines += [f"| {t.asked} | {t.reached} | {'met' if t.met else 'missed'} |" for t in all_of(data)]
    if "phone" in data:
        lines += ["", "### On the emulated phone", "", *phone.tables(data["phone"])]
    if "simulated" in data:
        lines += ["", "### On simulated devices", "", *page.tables(data["simulated"])]
    lines.append("")
    write_text(path, f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")


def all_of(data: dict[str, Any]) -> list[page.Target]:
    """Targets of every part that has been run."""
    found = page.targets(data["simulated"]) if "simulated" in data else []
    return found + (phone.targets(data["phone"]) if "phone" in data else [])


def report(data: dict[str, Any]) -> int:
    """Print the targets, last."""
    found = all_of(data)
    for target in found:
        print(target.line())
    return 0 if all(target.met for target in found) else 1


if __name__ == "__main__":
    sys.exit(main())
