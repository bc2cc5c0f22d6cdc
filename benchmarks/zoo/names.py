"""What the parts of a run call the same things: the files of a folder, the exporters, the peers."""

from __future__ import annotations

# In the folder of an architecture: the exporter's own file, the same with its constants evaluated,
# what was found when it was exported, what float64 says that it computes, what torch says, and what
# the peers left.
USER, MODEL, EXPORT, TRUTH, REFERENCE, RIVALS = (
    "user.onnx",
    "model.onnx",
    "export.json",
    "truth.npz",
    "reference.npz",
    "peers.json",
)
# The converter tries the first of them first.
EXPORTERS = ("torch.export", "TorchScript")
RIVAL_NAMES = ("onnxruntime", "onnxslim", "onnxscript", "aimet-onnx")
