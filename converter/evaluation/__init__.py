"""Graphs that are run: in float64, from the ONNX specification, and in onnxruntime."""
