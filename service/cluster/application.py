"""The service on Ray Serve: `serve run service.cluster:app`, `python -m service --engine ray`.

A replica is a whole service, as a worker of --workers is: models, queues, batchers and counters
of its own; only HTTP comes to it through Ray's proxies. It watches the models folder, so that a
new version needs no deployment, and each replica changes over without failing a request.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from service import cpu, source
from service.cluster import plan as cluster_plan
from service.cluster.replica import Served
from service.listen import CannotStart
from service.settings import Settings
from service.telemetry.logs import configure
from service.version import program_version

cluster_plan.prepare(os.environ)  # before Ray is imported

try:
    import ray
    from ray import serve
except ImportError:
    raise CannotStart(
        "The Ray engine needs the extra [ray]: pip install 'foldserve[ray]'."
    ) from None


_LOOPBACK = "127.0.0.1"


@serve.ingress()
class Replica:
    """One process of the deployment."""

    def __init__(self, values: dict[str, Any]) -> None:
        _listen_inside()
        configure(values["log_level"], values["log_format"])
        session = ray.get_runtime_context().get_session_name()
        self._served = Served(values, program_version(), session)

    def __serve_build_asgi_app__(self) -> Served:
        return self._served

    async def check_health(self) -> None:
        """Ray asks; a replica that is not ready gets no requests, and is replaced in the end."""
        reasons = self._served.obstacles()
        if reasons:
            raise RuntimeError(" ".join(reasons))


def _listen_inside() -> None:
    """On a Ray of 127.0.0.1, keep the replica's own port there as well.

    Ray opens it on all addresses, for calls between deployments, asks for no key and unpickles
    what comes: a client that reaches it can run code. Ray has no setting for it.
    """
    if not ray.util.get_node_ip_address().startswith("127."):
        return
    from ray.serve._private import replica

    add = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, at: add(server, at.replace("[::]", _LOOPBACK))


def build(settings: Settings, cpus: int | None = None) -> Any:
    """The application for `serve.run`.

    Args:
        settings: of the whole service; paths must mean the same on every node.
        cpus: of the whole cluster; by default those of the Ray that this process has joined,
            or its own.

    Raises:
        CannotStart: as `cluster_plan.plan`, no models folder, or no keys.
    """
    if cpus is None:
        cpus = cluster_cpus() if ray.is_initialized() else cpu.available().threads
    source.check(settings)  # a store is for the replicas to reach
    made = cluster_plan.plan(settings, cpus)
    values = settings.model_dump()
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = value.resolve()
    values["max_replicas"] = made.replicas
    with warnings.catch_warnings():
        # The interval of the metrics becomes a variable in a later Ray; here it is no global.
        warnings.simplefilter("ignore", DeprecationWarning)
        deployment = serve.deployment(Replica, name=cluster_plan.DEPLOYMENT, **made.deployment)
    return deployment.bind(values)


def cluster_cpus() -> int:
    """CPUs of the Ray that this process has joined, as Ray counts them."""
    return max(1, int(ray.cluster_resources().get("CPU", 0)))


def address() -> str:
    """Where others can join the Ray that this process has joined."""
    return str(ray.get_runtime_context().gcs_address)
