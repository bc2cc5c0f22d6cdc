"""All patterns: importing a family registers it."""

from __future__ import annotations

from importlib import import_module

from patterns.registry import REGISTRY, Pattern

__all__ = ["PATTERNS", "REGISTRY"]

FAMILIES = (
    "linear",
    "between",
    "norms",
    "forward",
    "rearranged",
    "clamps",
    "sites",
    "branches",
    "blocks",
    "reparameterized",
    "architectures",
    "modules",
    "element_types",
    "refusals",
)

for _family in FAMILIES:
    import_module(f"patterns.{_family}")

PATTERNS: tuple[Pattern, ...] = tuple(REGISTRY.values())
