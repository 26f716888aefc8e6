"""Translations of torch operators that coremltools 9.0 refuses, registered with it."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def teach_coremltools() -> None:
    """Register the translations with this process's coremltools, once.

    ``dequantize_affine`` of a weight with more than two axes: coremltools' own takes matrices only,
    though ``constexpr_blockwise_shift_scale`` has blocks along any axis.
    """
    from coremltools.converters.mil.frontend import _utils
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op

    @register_torch_op(  # type: ignore[untyped-decorator]
        torch_alias=["torchao::dequantize_affine", "torchao.dequantize_affine"], override=True
    )
    def dequantize_affine(context: Any, node: Any) -> None:
        integers, _, scales, zeros, *_ = _get_inputs(context, node, min_expected=7)
        made = _utils._construct_constexpr_dequant_op(
            integers.val, zeros.val, scales.val, name=node.name
        )
        context.add(made)
