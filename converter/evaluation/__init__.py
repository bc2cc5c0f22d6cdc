"""Run graphs: in float64, by the ONNX specification, and in onnxruntime."""
