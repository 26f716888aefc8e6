"""Dynamic int8: linear layers whose activations get their range anew in each inference.

Right for transformers and other networks of linear layers whose activations differ much from input
to input; needs no calibration data. Convolutions stay float.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from compress.errors import CompressError
from compress.task import Inputs


def dynamic_int8(
    graph: GraphModule, example_inputs: Inputs, per_channel: bool
) -> tuple[GraphModule, list[str]]:
    """The converted module and notes; ``CompressError`` where there is no linear layer."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as stock
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    linear = torch.ops.aten.linear.default
    count = sum(node.target is linear for node in graph.graph.nodes)
    if not count:
        raise CompressError(
            "the model has no linear layer, which is all that dynamic quantization covers",
            hint="Use mode: static for convolutions.",
        )
    quantizer = stock.XNNPACKQuantizer().set_operator_type(
        linear,
        stock.get_symmetric_quantization_config(is_per_channel=per_channel, is_dynamic=True),
    )
    prepared = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        prepared(*example_inputs)  # the weights' observers see them only when they run
    return convert_pt2e(prepared), [f"{count} linear layers with dynamic activations"]
