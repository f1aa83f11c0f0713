"""Matrix products of an ONNX file in 8-bit integers, activations rounded row by row.

A row (a token) has a scale of its own, so its numbers do not depend on the other rows of a batch, which may be another
tenant's; rounding by the range of a whole batch would let them. Products are exact in 32-bit integers (Jacob et al. 2018,
"Quantization and Training of Neural Networks"; scales per row and column as in Dettmers et al. 2022, "LLM.int8()").
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST_COLUMNS = 64  # smaller products are not worth the rounding
LEAST_ROWS = 1024  # of a table
LARGEST = 127
TINY = 1e-12


def round_products(source: Path, target: Path) -> None:
    """Write `source` with its weights as int8 per column, its tables as int8 per row, and products of integers."""
    model = onnx.load(source)
    _Rounding(model.graph).apply()
    onnx.save(model, target)


class _Rounding:
    """One graph on its way: the nodes and constants that it will have."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.weights = {one.name: one for one in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rounded: dict[str, str] = {}  # activations, which several products may share

    def apply(self) -> None:
        """Replace what can be rounded, keep the rest, drop constants that nothing reads any more."""
        shared = {
            "scale": np.float32(1 / LARGEST),
            "tiny": np.float32(TINY),
            "last": np.array([-1], np.int64),
            "first": np.array([0], np.int64),
        }
        for name, value in {**shared, "middle": np.uint8(LARGEST + 1)}.items():
            self._constant(f"rounding_{name}", np.asarray(value))
        for node in list(self.graph.node):
            self._place(node)
        used = {name for node in self.nodes for name in node.input} | {one.name for one in self.graph.output}
        kept = [one for one in [*self.graph.initializer, *self.constants] if one.name in used]
        for field, values in ((self.graph.node, self.nodes), (self.graph.initializer, kept)):
            del field[:]
            field.extend(values)
        del self.graph.value_info[:]

    def _place(self, node: onnx.NodeProto) -> None:
        table = self._matrix(node.input[0]) if node.op_type == "Gather" else None
        weight = self._matrix(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and weight.shape[1] >= LEAST_COLUMNS:
            self._product(node, weight)
        elif table is not None and table.shape[0] >= LEAST_ROWS:
            self._table(node, table)
        else:
            self.nodes.append(node)

    def _product(self, node: onnx.NodeProto, weight: np.ndarray) -> None:
        """(..., rows) x weight as rounded rows x int8 columns, times the scale of each row and of each column."""
        x, out = node.input[0], node.output[0]
        rows = self.rounded.get(x) or self._rows(x, weight.shape[0])
        columns, scales = _rounded(weight, axis=0)
        self._constant(f"{out}_columns", columns)
        self._constant(f"{out}_scales", scales.reshape(-1))
        self._constant(f"{out}_width", np.array([weight.shape[1]], np.int64))
        self._node("MatMulInteger", [f"{rows}_rows", f"{out}_columns", "rounding_middle"], f"{out}_whole")
        self._node("DequantizeLinear", [f"{out}_whole", f"{rows}_scale"], f"{out}_by_row", axis=0)
        self._node("Mul", [f"{out}_by_row", f"{out}_scales"], f"{out}_flat")
        self._node("Concat", [f"{rows}_before", f"{out}_width"], f"{out}_shape", axis=0)
        self._node("Reshape", [f"{out}_flat", f"{out}_shape"], out)

    def _rows(self, x: str, width: int) -> str:
        """Round an activation (..., width) to uint8 (rows, width) around 128; the name under which its parts are."""
        self._constant(f"{x}_wide", np.array([-1, width], np.int64))
        self._node("Abs", [x], f"{x}_sizes")
        self._node("ReduceMax", [f"{x}_sizes", "rounding_last"], f"{x}_largest", keepdims=0)
        self._node("Reshape", [f"{x}_largest", "rounding_last"], f"{x}_each")
        self._node("Max", [f"{x}_each", "rounding_tiny"], f"{x}_safe")
        self._node("Mul", [f"{x}_safe", "rounding_scale"], f"{x}_scale")
        self._node("Shape", [f"{x}_scale"], f"{x}_count")
        self._node("Expand", ["rounding_middle", f"{x}_count"], f"{x}_middles")
        self._node("Reshape", [x, f"{x}_wide"], f"{x}_table")
        self._node("QuantizeLinear", [f"{x}_table", f"{x}_scale", f"{x}_middles"], f"{x}_rows", axis=0)
        self._node("Shape", [x], f"{x}_before", start=0, end=-1)
        self.rounded[x] = x
        return x

    def _table(self, node: onnx.NodeProto, table: np.ndarray) -> None:
        """Rows of a table of int8 times their scales."""
        out = node.output[0]
        rows, scales = _rounded(table, axis=1)
        self._constant(f"{out}_entries", rows)
        self._constant(f"{out}_entry_scales", scales)
        for part in ("entries", "entry_scales"):
            self._node("Gather", [f"{out}_{part}", node.input[1]], f"{out}_its_{part}", axis=0)
        self._node("Cast", [f"{out}_its_entries"], f"{out}_floats", to=TensorProto.FLOAT)
        self._node("Mul", [f"{out}_floats", f"{out}_its_entry_scales"], out)

    def _matrix(self, name: str) -> np.ndarray | None:
        """A constant matrix of float32; None for anything else."""
        found = self.weights.get(name)
        if found is None or len(found.dims) != 2 or found.data_type != TensorProto.FLOAT:
            return None
        return numpy_helper.to_array(found)

    def _constant(self, name: str, value: np.ndarray) -> None:
        self.constants.append(numpy_helper.from_array(value, name))

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))


def _rounded(matrix: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 numbers and float32 scales such that their product is nearest to the matrix, a scale for all along `axis`."""
    scales = np.maximum(np.abs(matrix).max(axis=axis, keepdims=True), TINY) / LARGEST
    return np.round(matrix / scales).astype(np.int8), scales.astype(np.float32)
