"""Files out: ONNX, the contract with the service, versions that are published, stores."""
