"""One poisonous request in each batch, and 300 good ones beside it: who else fails?

    python -m benchmarks.serving.poison [--good 300]

The model looks rows up in a table and runs in batches (`--max-wait-us` lets them fill): an index
beyond the table makes onnxruntime throw, and the whole run with it. For each kind of poison, 300
good requests and one poisonous for every seven of them are sent at the same time over 64
connections; every good answer is compared with the table. A row of JSON for each kind on stdout
and in results/poison.jsonl, and the table in docs/serving-strain.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import document
from benchmarks.serving import strain, subjects
from benchmarks.serving.target import Target

COMMAND = "python -m benchmarks.serving.poison"
RESULTS = Path(__file__).parent / "results" / "poison.jsonl"
_CONNECTIONS = 64
_GOOD_FOR_ONE = 7
_PATH = "/models/table/predict"
_HEAD = b'{"inputs": '

# What is wrong, and the whole request; a body that is shorter than announced ends the connection.
POISON: dict[str, bytes] = {
    "index out of range (onnxruntime throws)": subjects.request(_PATH, _HEAD + b"[777]}"),
    "wrong rank": subjects.request(_PATH, _HEAD + b"[[1, 2]]}"),
    "wrong dtype (text)": subjects.request(_PATH, _HEAD + b'["1"]}'),
    "wrong dtype (fraction)": subjects.request(_PATH, _HEAD + b"[1.5]}"),
    "NaN": subjects.request(_PATH, _HEAD + b"[NaN]}"),
    "null": subjects.request(_PATH, _HEAD + b"[null]}"),
    "no JSON": subjects.request(_PATH, b"{"),
    "raw bytes that are no whole number": subjects.request(
        _PATH, b"\0" * 9, Content_Type="application/octet-stream"
    ),
    "cut body": subjects.request(_PATH, _HEAD + b"[1]}").replace(b": 15\r\n", b": 99\r\n"),
}


@dataclass
class Row:
    """`failed`: good requests without an answer of 200; `wrong`: with another answer."""

    kind: str
    good: int
    failed: int = 0
    wrong: int = 0
    poison: dict[str, int] = field(default_factory=dict)


async def feed(port: int, kind: str, good: int) -> Row:
    """Send `good` requests and their poison at the same time."""
    random = np.random.default_rng(0)
    places = asyncio.Semaphore(_CONNECTIONS)
    row = Row(kind, good)
    poison: Counter[str] = Counter()

    async def one(index: int) -> None:
        async with places:
            status, body = await _ask(port, subjects.request(_PATH, _HEAD + b"[%d]}" % index))
        if status != 200:
            row.failed += 1
        elif json.loads(body)["outputs"]["y"] != [[2 * index, 2 * index + 1]]:
            row.wrong += 1

    async def bad() -> None:
        async with places:
            status, _ = await _ask(port, POISON[kind])
        poison[str(status or "connection closed")] += 1

    tasks = []
    for number in range(good):
        tasks.append(one(int(random.integers(subjects.TABLE_ROWS))))
        if number % _GOOD_FOR_ONE == 0:
            tasks.append(bad())
    await asyncio.gather(*tasks)
    row.poison = dict(poison)
    return row


async def _ask(port: int, message: bytes) -> tuple[int, bytes]:
    """Status and body; 0 for a connection that was closed without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(message)
        if b": 99\r\n" in message:
            writer.write_eof()  # the client leaves in the middle of its body
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(line for line in lines if line.startswith(b"content-length:"))
        return int(head.split()[1]), await reader.readexactly(int(length[15:]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, b""
    finally:
        writer.close()


def measure(good: int, kinds: list[str]) -> list[Row]:
    """Every kind against one server."""
    with tempfile.TemporaryDirectory(prefix="strain-") as name:
        models = Path(name)
        subjects.publish(models, "table", subjects.table(), serving={"max_batch_size": 32})
        flags = ("--runners", "1", "--max-wait-us", "2000", "--log-level", "error")
        with Target(models, *flags) as target:
            return [asyncio.run(feed(target.port, kind, good)) for kind in kinds]


def text(rows: list[dict[str, Any]]) -> str:
    """The block of the document."""
    lines: list[list[object]] = [
        [
            row["kind"], row["good"], row["failed"], row["wrong"],
            ", ".join(f"{count} x {status}" for status, count in row["poison"].items()),
        ]
        for row in rows
    ]  # fmt: skip
    heads = ["poison", "good requests", "of these failed", "wrong answers", "the poisonous ones"]
    return "## Poison beside good requests\n\n" + document.table(heads, lines, "-rrr")


def main() -> int:
    parser = argparse.ArgumentParser(description="Poison in each batch.")
    parser.add_argument("--good", type=int, default=300)
    parser.add_argument("--try", action="store_true", dest="trial", help="write nothing")
    args = parser.parse_args()
    rows = [asdict(row) for row in measure(args.good, list(POISON))]
    for row in rows:
        print(json.dumps(row))
    if not args.trial:
        strain.save(RESULTS, rows, COMMAND, text(rows))
    return 1 if any(row["failed"] or row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
