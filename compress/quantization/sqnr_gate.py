"""How far quantization threw each layer off, and what is done where that is too far."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.fx import GraphModule, Node

from compress.layers import matching
from compress.quality import flat_outputs
from compress.quantization.lockstep import Noise, Walk, layers_of

Repair = Literal["equalize", "keep_float"]


class Gate(BaseModel):
    """What a quantized network must keep of the float one on calibration data.

    ``min_sqnr_db`` is held to all outputs together, ``min_layer_sqnr_db`` to each layer when it
    alone is quantized. ``repair`` is tried in order; ``refuse``, or repairs that do not suffice,
    ends the recipe. ``max_float_layers`` bounds ``keep_float``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_sqnr_db: float | None = None
    min_layer_sqnr_db: float | None = None
    repair: tuple[Repair, ...] | Literal["refuse"] = "refuse"
    max_float_layers: int = Field(default=4, ge=1)

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """The repairs in order; none for ``refuse``."""
        return () if self.repair == "refuse" else self.repair

    def complaint(self, measured: Measured) -> str:
        """What is missing, with figures; empty where the network passes."""
        found = []
        if self.min_sqnr_db is not None and measured.sqnr_db < self.min_sqnr_db:
            found.append(f"the outputs have {measured.sqnr_db:.1f} dB SQNR of {self.min_sqnr_db}")
        if self.min_layer_sqnr_db is not None:
            low = [row for row in measured.worst() if alone_db(row) < self.min_layer_sqnr_db]
            if low:
                found.append(f"{words(low[:3])} of {self.min_layer_sqnr_db} dB a layer")
        return "; ".join(found)


class Measured:
    """The SQNR of the outputs and of each layer on calibration data, from one walk."""

    def __init__(self, walk: Walk) -> None:
        self.rows = walk.noise
        signal = noise = 0.0
        for exact, quantized in zip(walk.exact, walk.quantized, strict=True):
            for left, right in zip(flat_outputs(exact), flat_outputs(quantized), strict=True):
                signal += _energy(left)
                noise += _energy(left.double() - right.double())
        self.sqnr_db = decibels(signal, noise)

    def worst(self) -> list[Noise]:
        """Layers by what their own quantization costs, the worst first."""
        return sorted(self.rows, key=alone_db)

    def note(self) -> str:
        """One line for the ledger."""
        if not self.rows:
            return "no layer was quantized"
        return (
            f"SQNR on calibration data {self.sqnr_db:.1f} dB; weakest layers alone "
            f"(with all before): {words(self.worst()[:3])}"
        )


def decibels(signal: float, noise: float) -> float:
    """10 log10 of a ratio of energies; infinite without noise, minus infinite without signal."""
    if noise == 0.0:
        return math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise)) if signal > 0.0 else -math.inf


def alone_db(row: Noise) -> float:
    """SQNR of a layer's output when it alone is quantized."""
    return decibels(row.signal, row.alone)


def words(rows: Iterable[Noise]) -> str:
    """Layers with their figures, such as ``stem 21.3 (20.9) dB``."""
    return ", ".join(
        f"{row.name} {alone_db(row):.1f} ({decibels(row.signal, row.accumulated):.1f}) dB"
        for row in rows
    )


def keep_float(prepared: GraphModule, names: Collection[str]) -> None:
    """Leave the weights of these layers in float, in a prepared module, in place.

    The layer still reads and gives quantized activations, unless nothing but the program's output
    reads them.
    """
    for name, node in layers_of(prepared).items():
        if name not in names:
            continue
        observer = node.args[1]
        assert isinstance(observer, Node)
        if observer.op == "call_module":
            source = observer.args[0]
            assert isinstance(source, Node)
            node.replace_input_with(observer, source)
        _unobserve_output(node)
    prepared.graph.eliminate_dead_code()
    prepared.recompile()


def _unobserve_output(node: Node) -> None:
    for user in list(node.users):
        if user.op == "call_module" and all(reader.op == "output" for reader in user.users):
            user.replace_all_uses_with(node)


def chosen(
    known: Sequence[str], layers: Sequence[str], exclude: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Names that are quantized, and those that are not; ``CompressError`` for a name of nothing."""
    taken = matching(known, layers, exclude)
    return taken, [name for name in known if name not in taken]


def _energy(value: Tensor) -> float:
    return float(value.double().square().sum())
