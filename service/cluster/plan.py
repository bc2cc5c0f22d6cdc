"""What Ray is asked for: the settings as options of Ray Serve, without importing Ray.

threads of a run    cpus_per_replica, which is also what a replica reserves
replicas            between min and max so that each has `target_ongoing_requests` under way
queue               what a replica may have under way is what its batchers may have waiting;
                    as much again per replica waits in each proxy, then 503
drain               a replica that is stopped gets no more requests, and `drain_timeout_ms`
                    for those it has
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.listen import CannotStart
from service.settings import Settings

APP = "foldserve"
DEPLOYMENT = "Replica"

# Read by Ray's processes when they start, so set before Ray is: what is set already stays.
ENVIRONMENT = {
    # No usage statistics are sent.
    "RAY_USAGE_STATS_ENABLED": "0",
    # The retries and the limits in front of the replicas: service/cluster/proxy.py.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "service.cluster.proxy:middlewares",
    # A replica's event loop is never held up (the batchers have threads of their own), so
    # a second loop in each process would only add two hops to every request.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # A proxy that needs longer to start, on a busy machine, is not started anew.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}

# For a Ray of our own: the name is history, what it decides is whether Ray's processes find each
# other by an address of the network or by 127.0.0.1, which other hosts cannot reach.
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

_HEALTH_PERIOD_S = 5.0
_HEALTH_TIMEOUT_S = 10.0
_DRAIN_LOOK_S = 0.25
# Longer than the service's own deadline, which is answered in the words of the protocol.
_TIMEOUT_MARGIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`deployment`: for `Deployment.options`; `http`: for the proxies; `replicas`: at most."""

    replicas: int
    deployment: dict[str, Any]
    http: dict[str, Any]


def prepare(environ: dict[str, str] | Any) -> None:
    """Set in `environ` what Ray's processes must inherit; before Ray is imported."""
    for name, value in ENVIRONMENT.items():
        environ.setdefault(name, value)


def plan(settings: Settings, cpus: int) -> Plan:
    """The options of the deployment and of the proxies.

    Args:
        cpus: of the whole cluster, as Ray counts them.

    Raises:
        CannotStart: a setting that means nothing on Ray, or replicas that cannot be.
    """
    if settings.grpc_port is not None:
        raise CannotStart(
            "--grpc-port is for --engine plain: Ray's proxies carry HTTP, where the V2 protocol "
            "has its binary form as well."
        )
    if settings.tls_certificate is not None:
        raise CannotStart(
            "--tls-certificate is for --engine plain: on Ray, put a proxy that ends TLS before it."
        )
    if settings.workers > 1:
        raise CannotStart("--workers is for --engine plain: on Ray, say --max-replicas.")
    most = settings.max_replicas
    if most is None:
        most = max(settings.min_replicas, cpus // settings.cpus_per_replica)
    if most < settings.min_replicas:
        raise CannotStart(
            f"--min-replicas {settings.min_replicas} is more than --max-replicas {most}."
        )
    if settings.cpus_per_replica > cpus:
        raise CannotStart(
            f"--cpus-per-replica {settings.cpus_per_replica}, and Ray has {cpus} in all: no "
            "replica could ever start."
        )
    return Plan(most, _deployment(settings, most), _http(settings))


def _deployment(settings: Settings, most: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "ray_actor_options": {
            "num_cpus": settings.cpus_per_replica,
            "num_gpus": settings.gpus_per_replica,
        },
        "max_ongoing_requests": settings.queue_capacity_samples,
        "max_queued_requests": settings.queue_capacity_samples * most,
        "graceful_shutdown_timeout_s": settings.drain_timeout_ms / 1000,
        "graceful_shutdown_wait_loop_s": _DRAIN_LOOK_S,
        "health_check_period_s": _HEALTH_PERIOD_S,
        "health_check_timeout_s": _HEALTH_TIMEOUT_S,
        "max_surge_percent": settings.surge_percent,
        "logging_config": {"enable_access_log": False},
    }
    if settings.min_replicas == most:
        return {**options, "num_replicas": most}
    window_s = settings.scale_window_ms / 1000
    scaling = {
        "min_replicas": settings.min_replicas,
        "max_replicas": most,
        "target_ongoing_requests": settings.target_ongoing_requests,
        "look_back_period_s": window_s,
        "metrics_interval_s": min(10.0, window_s / 4),
        "upscale_delay_s": settings.upscale_delay_ms / 1000,
        "downscale_delay_s": settings.downscale_delay_ms / 1000,
    }
    return {**options, "autoscaling_config": scaling}


def _http(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "request_timeout_s": settings.request_timeout_ms / 1000 + _TIMEOUT_MARGIN_S,
        "keep_alive_timeout_s": max(1, settings.keep_alive_timeout_ms // 1000),
    }


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `serve run service.cluster:app name=value`, named as the settings are.

    Raises:
        CannotStart: one is no setting.
    """
    known = set(Settings.model_fields)
    for name in given:
        if name not in known:
            raise CannotStart(f"{name!r} is not a setting; docs/service.md has the table.")
    return dict(given)
