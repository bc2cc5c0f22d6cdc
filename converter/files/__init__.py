"""ONNX files, in and out: large weights stay on disk, and nothing is ever half written."""
