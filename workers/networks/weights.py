"""Weights of a network as safetensors: written whole or not at all, read from any floating-point type."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_weights(model: nn.Module, path: Path, dtype: torch.dtype | None = None) -> None:
    """All parameters and buffers, floating-point ones as `dtype` if it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    save_file({name: _stored(value, dtype) for name, value in model.state_dict().items()}, new)
    new.replace(path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a network of the same shape; RuntimeError when names or shapes differ."""
    found = load_file(path)
    model.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in found.items()})


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    kept = value.detach().to(dtype) if dtype and value.is_floating_point() else value.detach()
    return kept.cpu().contiguous().clone()  # safetensors refuses tensors that share memory
