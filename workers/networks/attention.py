"""Attention as one operation of ONNX Runtime: products, mask and softmax together, without the large arrays in between."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "onnxruntime"


def fused(model: Any) -> Any:
    """A copy of a module with a BERT as its `encoder` that can only be exported: torch does not know the operation."""
    copied = deepcopy(model)
    copied.encoder.config._attn_implementation = NAME
    return copied


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Query, key and value (batch, heads, length, width) and the mask (batch, length) to (batch, length, heads, width)."""
    batch, heads, length, width = query.shape
    joined = [part.transpose(1, 2).reshape(batch, length, heads * width) for part in (query, key, value)]
    found = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention", [*joined, None, attention_mask.to(torch.int32)],
        {"num_heads": heads, "scale": float(scaling)}, dtype=query.dtype, shape=(batch, length, heads * width), version=1,
    )  # fmt: skip
    return found.reshape(batch, length, heads, width), None


def _mask(*_: Any, attention_mask: Tensor, **__: Any) -> Tensor:
    """The mask of the caller, which the operation takes as it is."""
    return attention_mask


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)
