"""ONNX files and what stands in them: our facts, layers with weights, operations."""
