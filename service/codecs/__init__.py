"""Wire formats: bytes to tensors and back. One file a format, none knows about HTTP."""
