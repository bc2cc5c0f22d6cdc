"""The text format of Prometheus, version 0.0.4: families of samples with labels.

    # HELP name what it is
    # TYPE name counter
    name{label="value"} 1

Written here because `prometheus_client` takes 3 to 5 microseconds and a lock for each
observation, ten times a plain assignment; its parser proves this writer in the tests.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


class Histogram:
    """Counts of values up to each bound (and beyond the last), and their sum. One thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[float]) -> float:
        """`observe` of each; their sum. The fewer buckets they fall into, the sooner."""
        bounds, counts = self.bounds, self.counts
        total, ordered, done = sum(values), sorted(values), 0
        self.total += total
        while done < len(ordered):
            bucket = bisect_left(bounds, ordered[done])
            known = done
            done = bisect_right(ordered, bounds[bucket]) if bucket < len(bounds) else len(ordered)
            counts[bucket] += done - known
        return total

    def add(self, other: Histogram) -> None:
        """Add the counts of a histogram with the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Exposition:
    """Collects families in the order in which they are begun.

    Args:
        labels: set on every sample, for example the worker.
    """

    def __init__(self, labels: Labels | None = None) -> None:
        self._labels = dict(labels or {})
        self._lines: list[str] = []
        self._name = ""

    def family(self, name: str, kind: str, description: str) -> None:
        """Begin a family; `kind` is counter, gauge or histogram. Its samples follow."""
        self._name = name
        self._lines += [f"# HELP {name} {_text(description)}", f"# TYPE {name} {kind}"]

    def sample(self, value: float, labels: Labels | None = None, suffix: str = "") -> None:
        """A sample of the family that was begun last."""
        pairs = {**self._labels, **(labels or {})}
        shown = ",".join(f'{key}="{_label(text)}"' for key, text in pairs.items())
        braces = f"{{{shown}}}" if shown else ""
        self._lines.append(f"{self._name}{suffix}{braces} {_number(value)}")

    def histogram(self, values: Histogram, labels: Labels | None = None) -> None:
        """The samples of one histogram: cumulative buckets, sum and count."""
        seen = 0
        for bound, count in zip([*values.bounds, math.inf], values.counts, strict=True):
            seen += count
            self.sample(seen, {**(labels or {}), "le": _number(bound)}, "_bucket")
        self.sample(values.total, labels, "_sum")
        self.sample(seen, labels, "_count")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def merge(pages: Iterable[str]) -> str:
    """Several pages as one: the samples of a family stand together, as the format asks."""
    families: dict[str, list[str]] = {}
    heads: dict[str, list[str]] = {}
    for page in pages:
        name = ""
        for line in page.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                heads[name] = [line]
                families.setdefault(name, [])
            elif line.startswith("#"):
                heads[name].append(line)
            elif line:
                families[name].append(line)
    return "\n".join(line for name in heads for line in (*heads[name], *families[name])) + "\n"


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(value)


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _text(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
