"""Foldserve's service: answers predictions from the ONNX models of a repository.

Imports nothing of the converter, nor torch, onnx or keras.
"""

import os

# onnxruntime reads it when it is loaded, and without it keeps an id below HOME and calls Microsoft.
# Set here, it is there before any module of the package can import onnxruntime, and inherited.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
