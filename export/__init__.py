"""From a checkpoint to fused, typed ONNX and TensorRT plans."""
