"""Passes over a graph that change no meaning, and what a graph costs."""
