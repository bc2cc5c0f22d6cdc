"""What is watched and scaled on is what GET /metrics has: no alert on a metric that is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from authority import Authority

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\b(?:foldserve|process)_[a-z_]+")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def watched() -> set[str]:
    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yml").read_text())
    dashboard = json.loads(
        (DEPLOY / "monitoring" / "grafana" / "dashboards" / "foldserve.json").read_text()
    )
    scaled = (DEPLOY / "kubernetes" / "base" / "autoscaler.yaml").read_text()
    adapted = (DEPLOY / "kubernetes" / "adapter-rule.yaml").read_text()
    texts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    texts += [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    return {
        SUFFIX.sub("", name) for text in [*texts, scaled, adapted] for name in NAME.findall(text)
    }


def test_every_metric_that_is_watched_exists(start, zoo: Path, tmp_path: Path) -> None:
    certificate, key = Authority().pair().write(tmp_path, "server")
    server = start(zoo, "--tls-certificate", str(certificate), "--tls-key", str(key))
    with server.client() as client:
        answer = client.post("/models/animals/predict", json={"inputs": [[0.0, 1.0, 2.0, 3.0]]})
        assert answer.status_code == 200
        page = client.get("/metrics").text
    assert server.stop() == 0
    families = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    assert "foldserve_queue_rows" in watched()
    assert watched() <= families
