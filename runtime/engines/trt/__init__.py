"""TensorRT plans on an NVIDIA GPU: the file, the deserialised engine, its buffers, streams and CUDA graph."""
