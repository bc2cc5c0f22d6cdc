"""Train the same network with and without batch-norm, and say what the measurements say."""
