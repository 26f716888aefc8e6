"""docs/walkthrough.md fits its script and its example, and what it tells of is so.

Whether the commands still print what it shows takes minutes and the emulated phone:
``python -m scripts.walkthrough --check``, which .github/workflows/linux.yml does.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scripts import walkthrough
from scripts.walkthrough import Command, Edit, lose_the_activation, mend

TEXT = (walkthrough.EXAMPLE / walkthrough.MODEL).read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```", page, re.M | re.S)


@pytest.fixture(scope="module")
def page() -> str:
    return walkthrough.PAGE.read_text(encoding="utf-8")


def test_the_prose_of_the_page_is_the_scripts(page: str) -> None:
    prose = re.sub(r"^```\w+\n.*?^```\n?", "", page, flags=re.M | re.S)
    wanted = [part for part in walkthrough.PARTS if isinstance(part, str)]
    assert prose.split() == " ".join(wanted).split()
    commands = [part for part in walkthrough.PARTS if isinstance(part, Command)]
    assert len(blocks(page)) == len(commands)
    for block, command in zip(blocks(page), commands, strict=True):
        shown = block.startswith(f"$ {command.words}\n")
        assert shown or command.words.startswith("git diff")


def test_the_page_goes_from_red_to_green(page: str) -> None:
    found = blocks(page)
    red, green, *_ = (block for block in found if block.startswith(f"$ {walkthrough.GATE}\n"))
    assert "\nREGRESSED: head is worse than base" in red
    assert red.endswith("$ echo $?\n8\n")
    assert re.search(r"REGRESSED +int8\.executorch@emulated-arm64/t1: instructions: \d", red)
    assert "parity: within all limits" in red
    assert "\nPASS: head is as good as base. Exit code 0." in green
    assert "REGRESSED" not in green
    worse = len(re.findall(r"^  REGRESSED ", red, re.M))
    assert any(block.count("::error title=REGRESSED") == worse for block in found)


def test_a_wanted_change_is_red_then_accepted_and_red_again_when_that_is_over(page: str) -> None:
    found = blocks(page)
    _, _, red = (block for block in found if block.startswith(f"$ {walkthrough.GATE}\n"))
    worse = set(re.findall(r"^  REGRESSED +(\S+: \w+):", red, re.M))
    assert {line.split()[1] for line in worse} >= {"instructions", "bytes", "macs"}
    file, accepted, over = found[-3:]
    # One entry for each, and with them the same gate is green, and says under which.
    assert len(re.findall(r"^  - subject:", file, re.M)) == len(worse)
    assert "\nPASS: what is worse was accepted on purpose: " in accepted
    assert " Exit code 0." in accepted
    assert "REGRESSED" not in accepted
    assert "echo $?" not in accepted
    for line in worse:
        assert re.search(
            rf"^  PASS +{re.escape(line)}: .*: accepted: up to .* by A Coll", accepted, re.M
        )
        assert re.search(rf"^  in force: {re.escape(line)} may come to ", accepted, re.M)
    # Nothing of it holds when its last day is over.
    assert "\nREGRESSED: head is worse than base" in over
    assert over.endswith("$ echo $?\n8\n")
    assert over.count("what A Colleague accepted ended on 2025-12-31") >= 2
    assert "in force" not in over


def test_the_diffs_are_those_of_the_example(page: str, tmp_path: Path) -> None:
    """Git makes them again, from the example's files as they are now."""
    here = walkthrough.repository(tmp_path)
    model = here / walkthrough.MODEL
    found = [block for block in blocks(page) if block.startswith("diff --git")]
    for part in walkthrough.PARTS:
        if isinstance(part, Edit) and part.file == walkthrough.MODEL:
            model.write_text(part.change(model.read_text()))
            words = next(p.words for p in walkthrough.PARTS if isinstance(p, Command)).split()
            done = subprocess.run(
                words, cwd=here, env=walkthrough.environment(), capture_output=True, text=True
            )
            assert walkthrough.scrubbed(done.stdout, here) == found.pop(0)
    assert found == []


def module(text: str, name: str, folder: Path) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_three_models_are_equal_for_every_input(tmp_path: Path) -> None:
    """So no test of outputs could have found the regression."""
    lost = lose_the_activation(TEXT)
    x = torch.cat([torch.linspace(-20, 20, 1001), torch.tensor([0.0, 6.0])])
    wanted = torch.nn.functional.relu6(x)
    for name, text in (("lost", lost), ("mended", mend(lost))):
        made = module(text, name, tmp_path)
        torch.testing.assert_close(made.Capped()(x), wanted, rtol=0, atol=2e-6)
        ours, theirs = made.task(), module(TEXT, "base", tmp_path).task()
        with torch.no_grad():
            got = ours.model(*ours.example_inputs)
            torch.testing.assert_close(got, theirs.model(*theirs.example_inputs))


def test_what_varies_is_left_out(tmp_path: Path) -> None:
    text = (
        f"Report: {tmp_path}/reports/gate/20300101-120000-2/index.html\n"
        "instructions: 354,584 → 1,537,664 instructions: exact: +51.6 %, 12,000 instructions "
        "are let pass\n"
        "  354,592 → 354,584 instructions: exact: -0.002 %, 12,000 instructions are let pass\n"
        "  354,592 → 354,592 instructions: exact: the same\n"
        "354,584.5 instructions; 24,368 → 27,696 bytes\n"
        "index ea16626..92b5c79 100644\n"
        "a/t1 instructions: up to 1.873 x of base accepted by A\n"
        "in force: a/t1: instructions may come to 1.873x until 2099-12-31\n"
        "a bytes: up to 1.407 x of base accepted by A\n"
        "    metric: instructions\n    up_to: 1.873\n"
        "    metric: bytes\n    up_to: 1.407\n"
    )
    assert walkthrough.scrubbed(text, tmp_path) == (
        "Report: reports/gate/.../index.html\n"
        "instructions: 354,xxx → 1,537,xxx instructions: exact: +51.6 %, 12,000 instructions "
        "are let pass\n"
        "  354,xxx → 354,xxx instructions: exact: ±0.0x %, 12,000 instructions are let pass\n"
        "  354,xxx → 354,xxx instructions: exact: ±0.0x %, 12,000 instructions are let pass\n"
        "354,xxx instructions; 24,368 → 27,696 bytes\n"
        "a/t1 instructions: up to 1.8xx x of base accepted by A\n"
        "in force: a/t1: instructions may come to 1.8xxx until 2099-12-31\n"
        "a bytes: up to 1.407 x of base accepted by A\n"
        "    metric: instructions\n    up_to: 1.8xx\n"
        "    metric: bytes\n    up_to: 1.407\n"
    )
