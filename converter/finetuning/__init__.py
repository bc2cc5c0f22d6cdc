"""Transfer learning with batch-norms whose statistics are not changed."""
