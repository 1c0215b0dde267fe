"""From a checkpoint to fused, typed ONNX and TensorRT plans."""

from runtime.common.interrupts import quiet_start

quiet_start()
