"""What Ray is asked for, and which settings mean nothing there; no Ray is needed for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service import listen
from service.cluster import plan as cluster_plan
from service.cluster import run as cluster_run
from service.cluster.pages import NodePages
from service.listen import CannotStart
from service.settings import Settings


def plan(cpus: int = 8, **values: Any) -> cluster_plan.Plan:
    return cluster_plan.plan(Settings(**values), cpus)


def test_the_cores_are_divided_and_the_queue_is_what_may_be_under_way():
    made = plan(cpus=8, cpus_per_replica=2, queue_capacity_samples=64, gpus_per_replica=0.5)
    assert made.replicas == 4
    assert made.deployment["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0.5}
    assert made.deployment["max_ongoing_requests"] == 64
    assert made.deployment["max_queued_requests"] == 256
    assert made.deployment["autoscaling_config"]["min_replicas"] == 1
    assert made.deployment["autoscaling_config"]["max_replicas"] == 4


def test_times_are_handed_on_in_ray_s_seconds():
    made = plan(
        drain_timeout_ms=1500, request_timeout_ms=3000, keep_alive_timeout_ms=500,
        scale_window_ms=2000, upscale_delay_ms=250, downscale_delay_ms=750,
        target_ongoing_requests=3.5,
    )  # fmt: skip
    assert made.deployment["graceful_shutdown_timeout_s"] == 1.5
    scaling = made.deployment["autoscaling_config"]
    assert scaling["look_back_period_s"] == 2.0
    assert scaling["metrics_interval_s"] < scaling["look_back_period_s"]
    assert (scaling["upscale_delay_s"], scaling["downscale_delay_s"]) == (0.25, 0.75)
    assert scaling["target_ongoing_requests"] == 3.5
    assert made.http["request_timeout_s"] > 3.0  # our own deadline comes first
    assert made.http["keep_alive_timeout_s"] == 1


def test_a_fixed_number_is_not_scaled():
    made = plan(min_replicas=2, max_replicas=2)
    assert made.deployment["num_replicas"] == 2
    assert "autoscaling_config" not in made.deployment


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"grpc_port": 8001}, "--grpc-port is for --engine plain"),
        ({"tls_certificate": "server.crt"}, "--tls-certificate is for --engine plain"),
        ({"workers": 2}, "--workers is for --engine plain"),
        ({"min_replicas": 3, "max_replicas": 2}, "--min-replicas 3 is more than --max-replicas 2"),
        ({"cpus_per_replica": 9}, "no replica could ever start"),
    ],
)
def test_what_cannot_be_is_said(values: dict[str, Any], said: str):
    with pytest.raises(CannotStart, match=said):
        plan(**values)


def test_arguments_of_serve_run_are_settings():
    assert cluster_plan.arguments({"max_replicas": "2"}) == {"max_replicas": "2"}
    with pytest.raises(CannotStart, match="'replicas' is not a setting"):
        cluster_plan.arguments({"replicas": "2"})


def test_what_is_set_already_stays_and_nothing_calls_home():
    environ = {"RAY_USAGE_STATS_ENABLED": "1"}
    cluster_plan.prepare(environ)
    assert environ["RAY_USAGE_STATS_ENABLED"] == "1"
    environ = {}
    cluster_plan.prepare(environ)
    assert environ["RAY_USAGE_STATS_ENABLED"] == "0"
    callback = environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    assert "service.cluster.proxy:middlewares" in callback


def test_without_ray_the_extra_is_named(tmp_path: Path):
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from service.__main__ import main\n"
        f"sys.exit(main(['--engine', 'ray', '--port', '0', '--models', {str(tmp_path)!r}]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1
    assert ran.stderr == "The Ray engine needs the extra [ray]: pip install 'foldserve[ray]'.\n"


def test_replicas_of_a_node_show_each_other_s_metrics_until_they_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first, second, other = NodePages("s", 11), NodePages("s", 12), NodePages("t", 13)
    second.publish("two")
    other.publish("three")
    assert first.labels == {"worker": "11"}
    assert first.others() == ["two"]
    (page,) = tmp_path.glob("*-s/12.prom")
    import os

    os.utime(page, (0, 0))
    assert first.others() == []


def test_a_folder_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    NodePages("s", 11)
    (folder,) = tmp_path.glob("*-s")
    folder.chmod(0o777)
    (folder / "99.prom").write_text("planted")
    assert NodePages("s", 12).others() == []


def test_a_free_port_is_none_that_others_choose_from() -> None:
    assert all(cluster_run._port(Settings(port=0)) in range(20_000, 32_768) for _ in range(20))


def test_a_port_that_was_asked_for_is_kept_or_refused() -> None:
    with listen.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} on 127.0.0.1 is in use"):
            cluster_run._port(Settings(port=port))
    assert cluster_run._port(Settings(port=port)) == port
