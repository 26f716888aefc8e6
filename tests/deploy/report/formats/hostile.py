"""Reports whose every text is an attack on some format."""

from __future__ import annotations

from deploy.types import GateReport, Outcome
from tests.deploy.report import gate_factory

TEXTS = (
    "</details><script>alert(1)</script>",
    "--> <!-- pocketship-comment: run other -->",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "a,b\n::error::injected",
    "100 %0A::warning::x",
    "]]></failure><failure>",
    "\x00\x1b[2J\ud800\ufffe\u202e",
    "| cell | `code` [link](javascript:x) ![p](http://evil.example/x.png)",
    "@octocat #1 https://evil.example",
    "+1",
    "-2+3",
    "\t=1",
    "＝1",
)


def gate_report(text: str) -> GateReport:
    """A gate's report in which ``text`` stands wherever a user, a model or a device writes."""
    made = gate_factory.gate_report()
    assert made.device
    assert made.device.info
    info = made.device.info.model_copy(update={"model": text, "os_build": text})
    profile = made.device.profile.model_copy(update={"description": text})
    sessions = [
        one.model_copy(update={"case": one.case.model_copy(update={"runtime_version": text})})
        for one in made.sessions
    ]
    verdicts = [
        gate_factory.verdict(outcome, subject=text, source=text, reason=text, accepted=accepted)
        for outcome in Outcome
        for accepted in ("", text)
    ]
    accepted_ = gate_factory.ACCEPTED.model_copy(
        update={"subject": text, "by": text, "reason": text, "metric": text}
    )
    return made.model_copy(
        update={
            "base": made.base.model_copy(update={"label": text}),
            "head": made.head.model_copy(update={"label": text, "commit": text}),
            "device": made.device.model_copy(update={"info": info, "profile": profile}),
            "sessions": tuple(sessions),
            "verdicts": tuple(verdicts),
            "accepted": (accepted_,),
        }
    )
