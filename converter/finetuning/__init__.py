"""Transfer learning with batch-norms that stay what they were."""
