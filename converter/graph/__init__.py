"""Passes that do not change what a graph computes, and the cost of a graph."""
