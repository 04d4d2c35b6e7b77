"""An engine of TensorRT 10 or 11 that is open on the GPU of this machine.

Device memory is allocated by cuda-python, as in TensorRT's own Python samples. It has not run where it was developed:
there was no GPU.

Legend: B batch, S side of the crop, C channels, N keypoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deploy.builders.base import Predictions, channels_first, filled
from deploy.onnx_graph import CONFIDENCE_NAME, KEYPOINTS_NAME
from deploy.targets import BatchProfile
from schemas.errors import ModelFileError


class TensorRtEngine:
    """Fed as many crops at once as it was built for, `batch`; its memory on the GPU is freed with it.

    Raises:
        ModelFileError: tensorrt or cuda-python are not installed, the engine was built by another version or for
            another GPU, or its tensors are not those of this project.
    """

    def __init__(self, path: Path, batch: BatchProfile) -> None:
        try:
            import tensorrt
            from cuda.bindings import runtime
        except ImportError as error:
            raise ModelFileError(
                f"{path}: can't be run here: {error}; install the extra 'tensorrt10' or 'tensorrt11'"
            ) from error
        self._cuda = _Cuda(runtime)
        self._batch = batch
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ModelFileError(
                f"{path}: TensorRT {tensorrt.__version__} does not load it: it was built by another version or for "
                "another GPU; build it on this machine"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        if len(inputs) != 1 or not {KEYPOINTS_NAME, CONFIDENCE_NAME}.issubset(names):
            raise ModelFileError(f"{path}: has the tensors {', '.join(names)}; build it with this project")
        self._input, self._outputs = inputs[0], [name for name in names if name not in inputs]
        self._context = self._engine.create_execution_context()
        self._memory = {name: self._cuda.allocate(self._bytes(name)) for name in names}
        for name, address in self._memory.items():
            self._context.set_tensor_address(name, address)

    def __del__(self) -> None:
        for address in getattr(self, "_memory", {}).values():
            self._cuda.free(address)

    def predict(self, images_BSSC: np.ndarray) -> Predictions:
        """See `Engine.predict`."""
        images_BCSS = channels_first(images_BSSC)
        size = self._batch.maximum
        parts = [self._run(images_BCSS[start : start + size]) for start in range(0, len(images_BCSS), size)]
        return Predictions(
            np.concatenate([part[KEYPOINTS_NAME] for part in parts]),
            np.concatenate([part[CONFIDENCE_NAME] for part in parts]),
        )

    def _run(self, images_BCSS: np.ndarray) -> dict[str, np.ndarray]:
        faces, images_BCSS = len(images_BCSS), np.ascontiguousarray(filled(images_BCSS, self._batch.minimum))
        if not self._context.set_input_shape(self._input, images_BCSS.shape):
            raise ModelFileError(f"the engine takes no crops of shape {images_BCSS.shape}; TensorRT's log says why")
        self._cuda.copy_in(self._memory[self._input], images_BCSS)
        with self._cuda.stream() as stream:
            if not self._context.execute_async_v3(stream.handle):
                raise ModelFileError("the engine did not run; TensorRT's log says why")
        outputs = {}
        for name in self._outputs:
            outputs[name] = np.empty(tuple(self._context.get_tensor_shape(name)), np.float32)
            self._cuda.copy_out(outputs[name], self._memory[name])
        return {name: values[:faces] for name, values in outputs.items()}

    def _bytes(self, name: str) -> int:
        """Of the tensor with the most crops that go in at once; inputs and outputs are float32."""
        _, *rest = self._engine.get_tensor_shape(name)
        return self._batch.maximum * int(np.prod(rest)) * np.dtype(np.float32).itemsize


class _Stream:
    def __init__(self, cuda: _Cuda) -> None:
        self._cuda = cuda
        self.handle = int(cuda.call("cudaStreamCreate"))

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._cuda.call("cudaStreamSynchronize", self.handle)
        self._cuda.call("cudaStreamDestroy", self.handle)


class _Cuda:
    """CUDA's runtime calls, which give an error code first."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def call(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self._runtime, name)(*arguments)
        if int(error):
            raise ModelFileError(f"{name} failed: {self._runtime.cudaGetErrorString(error)[1].decode()}")
        return results[0] if results else None

    def stream(self) -> _Stream:
        return _Stream(self)

    def allocate(self, size: int) -> int:
        return int(self.call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self.call("cudaFree", address)

    def copy_in(self, address: int, values: np.ndarray) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpy", address, values.ctypes.data, values.nbytes, kind)

    def copy_out(self, values: np.ndarray, address: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpy", values.ctypes.data, address, values.nbytes, kind)
