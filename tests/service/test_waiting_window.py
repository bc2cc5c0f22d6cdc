"""`--max-wait-us` on a real server: what comes within the window is one run."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import repository
from prometheus_client.parser import text_string_to_metric_families

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize("flags", [(), ("--runners", "2")], ids=["as measured", "two runners"])
def test_two_requests_within_the_window_are_one_run(start, tmp_path: Path, flags: tuple[str, ...]):
    repository.publish(tmp_path, "m", repository.linear(), test={"x": X}, batch_invariant=True)
    served = start(tmp_path, "--max-wait-us", "3000000", *flags)
    body = {"inputs": X[:1].tolist()}
    said: list[object] = []
    with served.client() as client:

        def ask() -> None:
            said.append(client.post("/models/m/predict", json=body).json()["outputs"])

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        page = client.get("/metrics").text
    assert len(said) == 2
    assert said[0] == said[1]
    (rows,) = [
        family for family in text_string_to_metric_families(page)
        if family.name == "foldserve_batch_rows"
    ]  # fmt: skip
    found = {sample.name.rpartition("_")[2]: sample.value for sample in rows.samples}
    assert (found["count"], found["sum"]) == (1, 2)
    assert served.stop() == 0
