"""What each operator of a model costs: the runtimes' profiles, read as the untrusted text they are.

Parsers are pure: text in, rows out, ``ValueError`` with one line where the text is not a profile.
Which layer a row came from is :mod:`deploy.metrics.layers`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from deploy.android_text import printable
from deploy.metrics.latency import Clock
from deploy.types import Model, OperatorCost

MAX_PROFILE_BYTES = 64 << 20
MAX_OPERATORS = 8192
_MAX_NAME = 200

OUTSIDE = "(outside operators)"
"""Name of the row that holds what an inference takes beyond its operators."""
DELEGATE_CALL = "(delegate call)"
"""Kind of the row that holds what the call of a delegate takes beyond the delegate's operators."""

_Time = Annotated[int, Field(ge=0, le=2**62)]
_Chain = Annotated[int, Field(ge=-(2**31), le=2**31)]
_Index = Annotated[int, Field(ge=0, le=2**32)]
_Text = Annotated[str, Field(max_length=4096)]


class _TracerProfile(Model):
    """What the runner's tracer of ExecuTorch's events writes (docs/architecture.md)."""

    truncated: bool
    names: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=2**16)]
    events: Annotated[
        tuple[
            tuple[_Index, Literal[0, 1], _Index, _Chain, _Index, _Time, _Time],
            ...,
        ],
        Field(max_length=1_000_000),
    ]


class _Row(NamedTuple):
    """One operator in one inference; the first three are the same in every inference."""

    name: str
    kind: str
    backend: str
    ns: int


@dataclass
class _Instruction:
    """One instruction of an ExecuTorch program in one inference."""

    delegate: bool
    ns: int = 0
    kernel: str = ""
    parts: list[tuple[str, int]] = field(default_factory=list)


def executorch_operators(text: bytes, *, inferences: int, clock: Clock) -> list[OperatorCost]:
    """Rows of the last ``inferences`` of a profile, in the order in which operators run.

    Names begin with the instruction's number. A delegate's operators are the delegate's own report;
    XNNPACK gives whole microseconds, cut off. What the call takes beyond them is a row of kind
    :data:`DELEGATE_CALL`, and what an inference takes beyond its instructions is :data:`OUTSIDE`,
    so that the rows of an inference sum to its whole time.
    """
    profile = _parsed(_TracerProfile, text)
    if profile.truncated:
        raise ValueError("the model has more events than the runner keeps")
    found: dict[int, dict[tuple[int, int], _Instruction]] = {}
    whole: dict[int, int] = {}
    for inference, is_delegate, index, chain, number, begin, end in profile.events:
        if index >= len(profile.names) or end < begin:
            raise ValueError("an event has no name, or ends before it begins")
        name, ns = profile.names[index], end - begin
        instructions = found.setdefault(inference, {})
        if name == "Method::execute":
            whole[inference] = ns
        elif is_delegate:
            # The call's own event begins before those inside it, and events come as they begin.
            if (chain, number) in instructions:
                instructions[chain, number].parts.append((name, ns))
        elif name in ("DELEGATE_CALL", "OPERATOR_CALL"):
            one = instructions.setdefault(
                (chain, number), _Instruction(delegate=name == "DELEGATE_CALL")
            )
            one.ns += ns  # A loop in the program comes by more than once.
        elif name.startswith(_NATIVE) and (chain, number) in instructions:
            instructions[chain, number].kernel = name.removeprefix(_NATIVE)
    return _costs(
        [
            _tracer_rows(found[inference], whole.get(inference, 0))
            for inference in sorted(found)[-inferences:]
        ],
        clock,
    )


def _tracer_rows(instructions: Mapping[tuple[int, int], _Instruction], whole_ns: int) -> list[_Row]:
    rows = []
    for (chain, number), one in instructions.items():
        place = f"{chain}.{number}" if chain else str(number)
        if one.delegate:
            rows += [
                _Row(f"{place}: {name}", re.sub(r" #[0-9]+$", "", name), "xnnpack", ns)
                for name, ns in one.parts
            ]
            rest = one.ns - sum(ns for _, ns in one.parts)
            rows.append(_Row(f"{place}: delegate call", DELEGATE_CALL, "executorch", max(rest, 0)))
        else:
            kernel = one.kernel or "unnamed"
            rows.append(_Row(f"{place}: {kernel}", kernel.split(".")[0], "executorch", one.ns))
    rest = whole_ns - sum(one.ns for one in instructions.values())
    rows.append(_Row(OUTSIDE, OUTSIDE, "executorch", max(rest, 0)))
    return rows


_NATIVE = "native_call_"
_KERNEL_TIME = "_kernel_time"


class _TraceArguments(BaseModel):
    """Of an event's arguments, those that are of interest; the others differ by version."""

    op_name: _Text = ""
    provider: _Text = ""
    node_index: _Text = ""


class _TraceEvent(BaseModel):
    """One event of ONNX Runtime's profile; times are whole microseconds."""

    cat: _Text
    name: _Text
    ts: _Time = 0
    dur: _Time = 0
    args: _TraceArguments = _TraceArguments()


def onnxruntime_operators(text: bytes, *, inferences: int, clock: Clock) -> list[OperatorCost]:
    """Rows of the last ``inferences`` of an ONNX Runtime profile, in the order of execution.

    ONNX Runtime gives whole microseconds. :data:`OUTSIDE` is what an inference takes beyond its
    nodes.
    """
    events = _parsed(TypeAdapter(list[_TraceEvent]), text)
    runs = [event for event in events if event.cat == "Session" and event.name == "model_run"]
    nodes = [event for event in events if event.cat == "Node" and event.name.endswith(_KERNEL_TIME)]
    nodes.sort(key=lambda event: event.ts)
    starts = [event.ts for event in nodes]
    runs.sort(key=lambda event: event.ts)
    # Times are whole microseconds, so a run's end can be its last node's start; the next run's
    # start cannot.
    ends = [*(run.ts for run in runs[1:]), 2**63]
    kept = []
    for run, end in list(zip(runs, ends, strict=True))[-inferences:]:
        inside = nodes[bisect_left(starts, run.ts) : bisect_left(starts, end)]
        rows = [
            _Row(
                event.name.removesuffix(_KERNEL_TIME),
                event.args.op_name or "unnamed",
                event.args.provider.removesuffix("ExecutionProvider").lower() or "unknown",
                event.dur * 1000,
            )
            for event in inside
        ]
        rest = run.dur * 1000 - sum(row.ns for row in rows)
        rows.append(_Row(OUTSIDE, OUTSIDE, "onnxruntime", max(rest, 0)))
        kept.append(rows)
    return _costs(kept, clock)


def _parsed(wanted: Any, text: bytes) -> Any:
    if len(text) > MAX_PROFILE_BYTES:
        raise ValueError(f"the profile has {len(text)} bytes, more than {MAX_PROFILE_BYTES}")
    adapter = wanted if isinstance(wanted, TypeAdapter) else TypeAdapter(wanted)
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:100]
        raise ValueError(f"{key}: {first['msg']}" if key else str(first["msg"])) from None


def _costs(inferences: Sequence[Sequence[_Row]], clock: Clock) -> list[OperatorCost]:
    """The rows of all inferences side by side; ``ValueError`` where they are not the same rows."""
    if not inferences or len(inferences[0]) < 2:
        raise ValueError("it holds no operator of any inference")
    first = inferences[0]
    if len(first) > MAX_OPERATORS:
        raise ValueError(f"it has {len(first)} operators, more than {MAX_OPERATORS}")
    shape = [row[:3] for row in first]
    if any([row[:3] for row in other] != shape for other in inferences):
        raise ValueError("its inferences do not run the same operators in the same order")
    unit: Literal["ms", "instructions"] = "instructions" if clock == "icount" else "ms"
    scale = 1.0 if clock == "icount" else 1e6
    return [
        OperatorCost(
            name=printable(row.name, _MAX_NAME),
            kind=printable(row.kind, _MAX_NAME),
            backend=printable(row.backend, _MAX_NAME),
            unit=unit,
            samples=tuple(other[index].ns / scale for other in inferences),
        )
        for index, row in enumerate(first)
    ]
