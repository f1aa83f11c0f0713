"""Products in 8-bit integers: near to the exact ones, and a row's own whatever lies beside it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from workers.runtime.graphs import Graph
from workers.runtime.rounding import round_products

DICE = np.random.default_rng(5)
TABLE = DICE.normal(size=(2000, 96)).astype(np.float32)
WEIGHT = DICE.normal(size=(96, 128)).astype(np.float32)


@pytest.fixture
def graphs(tmp_path) -> tuple[Graph, Graph]:
    """Rows of a table times a weight, exact and rounded."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x"]), helper.make_node("MatMul", ["x", "weight"], ["y"])]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 128])]
    constants = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(WEIGHT, "weight")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, constants), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    exact, rounded = tmp_path / "exact.onnx", tmp_path / "rounded.onnx"
    onnx.save(model, exact)
    round_products(exact, rounded)
    return Graph(exact), Graph(rounded)


def test_a_rounded_product_is_near_and_a_quarter_as_large(graphs) -> None:
    ids = DICE.integers(0, 2000, (3, 7))
    exact, rounded = (graph(ids=ids)[0] for graph in graphs)
    assert np.abs(exact - rounded).max() < 0.02 * np.abs(exact).max()
    assert graphs[1].bytes < 0.3 * graphs[0].bytes


def test_a_row_does_not_depend_on_its_neighbours(graphs) -> None:
    _, rounded = graphs
    largest = int(np.abs(TABLE).max(1).argmax())
    alone = rounded(ids=np.array([[7]]))[0]
    beside = rounded(ids=np.array([[largest, 7], [3, largest]]))[0]
    assert (beside[0, 1] == alone[0, 0]).all()


def test_a_row_of_zeros_stays_zero(tmp_path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])] for name, width in (("x", 96), ("y", 128)))
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(WEIGHT, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "exact.onnx")
    round_products(tmp_path / "exact.onnx", target := Path(tmp_path / "rounded.onnx"))
    assert (Graph(target)(x=np.zeros((2, 96), np.float32))[0] == 0).all()
