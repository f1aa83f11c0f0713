"""An exported network, opened by ONNX Runtime with a device and a thread budget."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Graph:
    """One ONNX file. Call it with its inputs by name; the outputs come back in the order of `outputs`.

    `device` is `cpu` or `cuda:N`. ValueError for another device, RuntimeError when CUDA was asked for and is not there.
    """

    def __init__(self, path: Path, *, device: str = "cpu", threads: int = 1) -> None:
        self.session = onnxruntime.InferenceSession(path, session_options(threads), providers=providers(device))
        if device != "cpu" and "CUDAExecutionProvider" not in self.session.get_providers():
            raise RuntimeError(f"The device {device} was asked for, but ONNX Runtime finds no CUDA here.")
        self.inputs = {value.name: tuple(value.shape) for value in self.session.get_inputs()}
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.bytes = path.stat().st_size

    def __call__(self, **inputs: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self.session.run(self.outputs, inputs)
        return outputs


def providers(device: str) -> list[Any]:
    """What ONNX Runtime calls the device. On CUDA, operations without a kernel fall back to the CPU."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdigit():
        raise ValueError(f"The device must be cpu or cuda:N, not {device!r}.")
    options = {"device_id": int(index), "arena_extend_strategy": "kSameAsRequested"}
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """`threads` for one operation, operations one after the other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # the arena keeps the memory of the largest batch for ever
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the core to others
    return options
