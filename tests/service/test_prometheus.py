"""A real Prometheus with our configuration scrapes a real server: every query has an answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import Served

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "foldserve.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTS = [
    rule["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
NAME = re.compile(r"\b(?:foldserve|process)_[a-z_]+\b(?!=)")


ONLY_WITH_TLS = {"foldserve_certificate_expires_seconds"}


def filled_in(query: str) -> str:
    """What Grafana would send: all instances, and a rate over some scrapes."""
    return query.replace("$__rate_interval", "10s").replace("$instance", ".*")


class Prometheus:
    """A server on a free port whose one target is `target`, scraped every second."""

    def __init__(self, folder: Path, target: str) -> None:
        program = shutil.which("prometheus")
        if program is None:
            assert not os.environ.get("ALL_TOOLS_REQUIRED"), "no prometheus"
            pytest.skip("prometheus is not installed (Debian: apt install prometheus)")
        ours = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        ours["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        ours["rule_files"] = [str(MONITORING / name) for name in ours["rule_files"]]
        (scraped,) = ours["scrape_configs"]
        scraped["static_configs"] = [{"targets": [target]}]
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(ours))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [
                program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False)

    def ask(self, path: str, **parameters: str) -> Any:
        try:
            answer = self._client.get(path, params=parameters)
        except httpx.TransportError:  # it is starting
            assert self._process.poll() is None, Path(self._log.name).read_text()
            return None
        if answer.status_code == 503:
            return None
        body = answer.json()
        assert body["status"] == "success", (parameters, body)
        return body["data"]

    def until(self, path: str, good: Callable[[Any], bool], **parameters: str) -> Any:
        end = time.monotonic() + 60
        while not ((data := self.ask(path, **parameters)) and good(data)):
            assert time.monotonic() < end, (path, parameters, data)
            time.sleep(0.1)
        return data

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(timeout=60)
        self._log.close()


@pytest.fixture(scope="module")
def prometheus(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), server.url.removeprefix("http://"))
    try:
        with server.client() as client:
            client.post("/models/animals/predict", json={"inputs": [[1, 2, 3, 4]]})
            client.post("/models/animals/predict", json={"inputs": [[1]]})
            two = 'min(count_over_time(foldserve_requests_total{model="animals"}[1m])) >= 2'
            running.until("query", lambda data: bool(data["result"]), query=two)
            client.post("/models/animals/predict", json={"inputs": [[1, 2, 3, 4]]})
            more = 'increase(foldserve_requests_total{model="animals",code="200"}[1m]) > 0'
            running.until("query", lambda data: bool(data["result"]), query=more)
        yield running
    finally:
        running.close()


def test_it_scrapes_the_server(prometheus: Prometheus) -> None:
    (target,) = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_the_rules_are_evaluated(prometheus: Prometheus) -> None:
    def judged(data: Any) -> bool:
        return all(r["health"] == "ok" for group in data["groups"] for r in group["rules"])

    data = prometheus.until("rules", judged)
    assert sum(len(group["rules"]) for group in data["groups"]) == len(ALERTS)


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_every_query_can_be_answered(prometheus: Prometheus, query: str) -> None:
    prometheus.ask("query", query=filled_in(query))


@pytest.mark.parametrize(
    "name", sorted({n for q in [*QUERIES, *ALERTS] for n in NAME.findall(q)} - ONLY_WITH_TLS)
)
def test_every_metric_has_data(prometheus: Prometheus, name: str) -> None:
    assert prometheus.ask("query", query=f"count({name})")["result"], name


def test_a_metric_that_is_missing_would_be_noticed(prometheus: Prometheus) -> None:
    assert prometheus.ask("query", query="count(foldserve_no_such_total)")["result"] == []
    with pytest.raises(AssertionError, match="parse error"):
        prometheus.ask("query", query="sum(rate(foldserve_requests_total))(")


@pytest.mark.parametrize("by", ["route", "model"])
def test_the_latency_panels_have_a_line(prometheus: Prometheus, server: Served, by: str) -> None:
    (query,) = [q for q in QUERIES if f"0.99, sum by (le, {by}) (rate(foldserve_request" in q]

    def drawn(data: Any) -> bool:
        # The rate of a minute without requests is 0, and the quantile of that is NaN.
        assert client.post("/models/animals/predict", json={"inputs": [[1, 2, 3, 4]]}).is_success
        return any(float(line["value"][1]) > 0 for line in data["result"])

    with server.client() as client:
        prometheus.until("query", drawn, query=filled_in(query))
