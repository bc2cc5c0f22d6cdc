"""Graphs and networks with batch-norms, which the tests and the benchmarks share."""
