"""Write the Grafana dashboard: `python deploy/monitoring/make_dashboard.py`.

A dashboard is a list of panels, and a panel is a question with its PromQL: the table below. What
Grafana wants around that (schema version, positions on a grid of 24 columns) is made here.
Source: Grafana's documentation, "Dashboard JSON model".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "grafana" / "dashboards" / "foldserve.json"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WHERE = '{instance=~"$instance"}'


@dataclass(frozen=True)
class Panel:
    """One question. `queries`: the legend of each line and its PromQL."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    width: int = 8
    height: int = 8


def quantile(q: float, metric: str, by: str) -> str:
    return (
        f"histogram_quantile({q}, sum by (le, {by}) "
        f"(rate({metric}_bucket{WHERE}[$__rate_interval])))"
    )


def mean(metric: str) -> str:
    total, count = (f"rate({metric}_{part}{WHERE}[$__rate_interval])" for part in ("sum", "count"))
    return f"sum by (model) ({total}) / sum by (model) ({count})"


PANELS = [
    Panel("Ready", "none", {"{{instance}}": f"foldserve_ready{WHERE}"}, "stat", 4, 4),
    Panel(
        "Requests a second",
        "reqps",
        {"": f"sum(rate(foldserve_requests_total{WHERE}[$__rate_interval]))"},
        "stat",
        4,
        4,
    ),
    Panel(
        "Failing",
        "percentunit",
        {
            "": 'sum(rate(foldserve_requests_total{instance=~"$instance",code=~"5.."}'
            "[$__rate_interval])) / "
            f"sum(rate(foldserve_requests_total{WHERE}[$__rate_interval]))"
        },
        "stat",
        4,
        4,
    ),
    Panel(
        "Versions",
        "none",
        {"{{model}} {{version}} {{state}}": f"foldserve_model_version{WHERE}"},
        "stat",
        12,
        4,
    ),
    Panel(
        "Requests a second, by status",
        "reqps",
        {
            "{{code}}": f"sum by (code) (rate(foldserve_requests_total{WHERE}[$__rate_interval]))",
        },
    ),
    Panel(
        "Latency",
        "s",
        {
            "{{route}} p50": quantile(0.5, "foldserve_request_seconds", "route"),
            "{{route}} p99": quantile(0.99, "foldserve_request_seconds", "route"),
        },
    ),
    Panel(
        "Latency by model",
        "s",
        {"{{model}} p99": quantile(0.99, "foldserve_request_seconds", "model")},
    ),
    Panel(
        "Refused, by reason",
        "reqps",
        {"{{reason}}": f"sum by (reason) (rate(foldserve_refused_total{WHERE}[$__rate_interval]))"},
    ),
    Panel("Waiting rows", "none", {"{{instance}} {{model}}": f"foldserve_queue_rows{WHERE}"}),
    Panel(
        "Oldest that waits", "s", {"{{instance}} {{model}}": f"foldserve_queue_age_seconds{WHERE}"}
    ),
    Panel(
        "Rows in a batch, mean and p99",
        "none",
        {
            "{{model}} mean": mean("foldserve_batch_rows"),
            "{{model}} p99": quantile(0.99, "foldserve_batch_rows", "model"),
        },
    ),
    Panel(
        "Where the time goes (means)",
        "s",
        {
            f"{{{{model}}}} {stage}": mean(f"foldserve_{stage}_seconds")
            for stage in ("decode", "queue", "batch_wait", "compute", "encode")
        },
    ),
    Panel(
        "Budget of all requests",
        "bytes",
        {
            "{{instance}} in use": f"foldserve_bodies_held_bytes{WHERE}",
            "{{instance}} all": f"foldserve_budget_bytes{WHERE}",
        },
    ),
    Panel("Loading a version", "s", {"{{model}} {{version}}": f"foldserve_load_seconds{WHERE}"}),
    Panel(
        "Workers replaced, reloads failed, an hour",
        "none",
        {
            "worker {{reason}}": "sum by (reason) "
            f"(increase(foldserve_workers_replaced_total{WHERE}[1h]))",
            "{{what}}": f"sum by (what) (increase(foldserve_failed_reloads_total{WHERE}[1h]))",
        },
    ),
    Panel(
        "Certificate holds",
        "s",
        {"{{instance}}": f"foldserve_certificate_expires_seconds{WHERE} - time()"},
    ),
    Panel("Memory", "bytes", {"{{instance}}": f"process_resident_memory_bytes{WHERE}"}),
    Panel(
        "CPU",
        "none",
        {"{{instance}}": f"rate(process_cpu_seconds_total{WHERE}[$__rate_interval])"},
    ),
]


def dashboard() -> dict[str, Any]:
    """The document that Grafana provisions."""
    panels: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > 24:
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        panels.append(
            {
                "id": number,
                "title": panel.title,
                "type": panel.kind,
                "datasource": SOURCE,
                "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(65 + i), "datasource": SOURCE, "expr": expr}
                    | ({"legendFormat": legend} if legend else {})
                    for i, (legend, expr) in enumerate(panel.queries.items())
                ],
            }
        )
        x += panel.width
    instance = {
        "name": "instance",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(foldserve_ready, instance)", "refId": "instances"},
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
    return {
        "uid": "foldserve",
        "title": "Foldserve",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [instance]},
        "panels": panels,
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(dashboard(), indent=1) + "\n")
