"""An exported network, opened by ONNX Runtime with a device, a thread budget and a memory budget."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from workers.runtime.batching import Cut

DEVICE = re.compile(r"cpu|(?P<kind>cuda|tensorrt):(?P<index>\d+)")
# On a CPU, products of a few hundred rows keep its arithmetic busy, and larger ones leave its caches (docs/serving.md has the
# figures). On a GPU a run of a small network costs what it takes to start its operations, until thousands of tokens fill it.
CPU_CUT, GPU_CUT = Cut(budget=512, fixed=8), Cut(budget=32_768, fixed=4_096)
PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# What ONNX Runtime writes when an allocation fails: the C++ library, its arena, CUDA, cuBLAS, cuDNN.
NO_MEMORY = re.compile(
    r"std::bad_alloc|bad allocation|Failed to allocate memory|Available memory of \d+ is smaller than requested"
    r"|CUDA failure 2\b|CUDA error: out of memory|(?:CUBLAS|CUDNN)_STATUS_ALLOC_FAILED|CUDA_ERROR_OUT_OF_MEMORY"
)


class Graph:
    """One ONNX file, for any number of threads at a time. Call it with its inputs by name; the outputs come back in the
    order of `outputs`. `cut` says how rows of unequal length become runs here.

    `device` is `cpu`, `cuda:N` or `tensorrt:N`; `gpu_bytes` is the most that it may take there, 0 without a limit.
    ValueError for another device, RuntimeError when the device was asked for and is not there.
    """

    def __init__(self, path: Path, *, device: str = "cpu", threads: int = 1, gpu_bytes: int = 0) -> None:
        asked = providers(device, gpu_bytes)
        self.session = onnxruntime.InferenceSession(path, session_options(threads), providers=asked)
        check_found(device, self.session.get_providers())
        self.session.disable_fallback()  # or a failure of the device would move the session to the CPU in silence
        self.inputs = {value.name: tuple(value.shape) for value in self.session.get_inputs()}
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.bytes = path.stat().st_size
        self.cut = CPU_CUT if device == "cpu" else GPU_CUT

    def __call__(self, **inputs: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self.session.run(self.outputs, inputs)
        return outputs


def providers(device: str, gpu_bytes: int = 0) -> list[Any]:
    """What ONNX Runtime calls the device. On a GPU, operations without a kernel there run on the CPU.

    ValueError for a device of another form, RuntimeError for one whose provider this ONNX Runtime was built without.
    """
    found = DEVICE.fullmatch(device)
    if not found:
        raise ValueError(f"The device must be cpu, cuda:N or tensorrt:N, not {device!r}.")
    if device == "cpu":
        return ["CPUExecutionProvider"]
    check_found(device, onnxruntime.get_available_providers())
    index = int(found["index"])
    first = [("TensorrtExecutionProvider", {"device_id": index})] if found["kind"] == "tensorrt" else []
    return [*first, ("CUDAExecutionProvider", _cuda(index, gpu_bytes)), "CPUExecutionProvider"]


def _cuda(index: int, gpu_bytes: int) -> dict[str, Any]:
    options = {"device_id": index, "arena_extend_strategy": "kSameAsRequested"}
    return {**options, "gpu_mem_limit": gpu_bytes} if gpu_bytes else options


def check_found(device: str, found: list[str]) -> None:
    """RuntimeError that says what to do when the provider of a device is not among those found."""
    kind = device.partition(":")[0]
    if kind in PROVIDERS and PROVIDERS[kind] not in found:
        raise RuntimeError(
            f"The device {device} was asked for, but ONNX Runtime cannot use {PROVIDERS[kind]} here (it has {', '.join(found)}). "
            "Install the driver and libraries that it needs, or set MAAS_DEVICE=cpu."
        )


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """`threads` for one operation, operations one after the other, every optimisation of the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = True  # it keeps the memory of the largest run, which recipes keep small: steady, and faster
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the core to others
    return options


def out_of_memory(error: BaseException) -> bool:
    """Whether a run failed because memory could not be allocated, on the CPU or on the device."""
    if isinstance(error, MemoryError):
        return True
    return type(error).__module__.startswith("onnxruntime.") and NO_MEMORY.search(str(error)) is not None
