"""PyTorch modules to ONNX files. Only the export process imports this."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 20


@dataclass(frozen=True)
class Drawing:
    """What becomes one ONNX file.

    `inputs` are example tensors by name, `axes` the axes of each that may have any length, by name of the axis.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]
    axes: dict[str, dict[int, str]] = field(default_factory=dict)


def write_onnx(drawing: Drawing, path: Path) -> None:
    """Export with every named axis free. What torch raises for a network that cannot be exported goes to the caller."""
    drawing.module.eval()
    with torch.no_grad():
        program = torch.onnx.export(
            drawing.module, (), kwargs=drawing.inputs, input_names=list(drawing.inputs), output_names=drawing.outputs,
            dynamic_shapes=_shapes(drawing), opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError(f"torch gave no program for {drawing.name}.")
    program.save(path, external_data=False)


def _shapes(drawing: Drawing) -> dict[str, Any]:
    dim = torch.export.Dim
    return {name: dict.fromkeys(drawing.axes.get(name, {}), dim.DYNAMIC) for name in drawing.inputs}
