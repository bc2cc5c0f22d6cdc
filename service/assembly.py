"""What the server is put together from, each part as the settings ask for it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from service import device, source
from service.app import Application, create_app
from service.batching.choose import RunSettings
from service.connections.auth import Access, KeysUnusable
from service.context import Context
from service.device import Choice
from service.listen import CannotStart
from service.models import model, policy
from service.models.registry import Registry
from service.settings import Settings
from service.telemetry import tracing
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.pages import SharedPages
from service.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from service.engines.pick import Wish
    from service.protocols.grpc_server import GrpcServer
    from service.tls.certificates import Certificates

logger = logging.getLogger("foldserve")

# How long the threads of the models may take: they have nothing left to do, unless a run hangs.
CLOSE_S = 1.0

# Open files besides connections: models, the reserve for connections that are refused, the rest.
_OTHER_FILES = 256


def allow_files(connections: int) -> None:
    """Each connection is an open file, and many systems begin with room for 1024.

    Args:
        connections: over HTTP and gRPC together.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if granted < wanted:
        logger.warning(
            "%d connections (--max-connections) need %d files, the system allows %d (ulimit -n)",
            connections, wanted, granted,
        )  # fmt: skip


def certificates(context: Context) -> Certificates | None:
    """The server's certificate; None if it speaks in the clear.

    Raises:
        CannotStart: the files cannot be used, or one of them is not named.
    """
    settings = context.settings
    certificate, key, roots = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None and roots is None:
        return None
    if certificate is None or key is None:
        raise CannotStart(
            "TLS needs both --tls-certificate and --tls-key; if one file holds both, name it twice."
        )
    from service.tls.certificates import Certificates, CertificatesUnusable

    metrics = context.metrics
    try:
        made = Certificates(certificate, key, roots, partial(metrics.reload_failed, "certificate"))
    except CertificatesUnusable as error:
        raise CannotStart(str(error)) from None
    metrics.certificate_expires = lambda: made.now.validity.not_after
    return made


def observers(settings: Settings, version: str, access: Access) -> list[AccessLog | Tracing]:
    """What is told of every request besides the metrics."""
    found: list[AccessLog | Tracing] = []
    if settings.otlp_endpoint:
        try:
            found.append(tracing.over_http(settings.otlp_endpoint, version))
        except tracing.TracingUnavailable as error:
            raise CannotStart(str(error)) from None
    if settings.access_log_every_requests:  # last: it has a thread from here on
        found.append(AccessLog(settings.access_log_every_requests, access))
    return found


class Parts(NamedTuple):
    """A whole service, but for what listens. `choice`: where its models run."""

    context: Context
    app: Application
    choice: Choice
    observers: list[AccessLog | Tracing]

    def watch(self) -> None:
        """Look for new versions from now on, in a thread, if the settings ask for it."""
        if interval_ms := self.context.settings.watch_interval_ms:
            threading.Thread(
                target=self.context.registry.watch,
                args=(interval_ms / 1000,),
                name="foldserve-watch",
                daemon=True,
            ).start()

    def close(self) -> bool:
        """End the models' threads and the observers; False if a model was still running."""
        clean = self.context.registry.close(CLOSE_S)
        for observer in self.observers:
            observer.close()
        return clean


def build(
    settings: Settings,
    version: str,
    *,
    threads: int,
    alone: bool = True,
    shared: SharedPages | None = None,
) -> Parts:
    """All parts as the settings have them; nothing is loaded yet.

    Args:
        threads: that one model's run may use.
        alone: False if other processes serve the same repository on the same port.
        shared: where the metrics of these are.

    Raises:
        CannotStart: no repository, no keys where keys were asked for, an extra is missing.
        DeviceUnavailable: --device cuda without CUDA.
    """
    found = source.find(settings)
    try:
        access = Access.of(settings.api_keys_file, settings.admin_keys_file)
    except KeysUnusable as error:
        raise CannotStart(str(error)) from None
    choice = device.choose(
        settings.device,
        device_id=settings.cuda_device_id,
        memory_limit_bytes=settings.cuda_memory_limit_bytes,
    )
    metrics = Metrics(version, shared)
    loader = partial(
        load_counted,
        metrics=metrics,
        choice=choice,
        threads=threads,
        capacity_samples=settings.queue_capacity_samples,
        max_tensor_bytes=settings.max_tensor_bytes,
        settings=RunSettings(
            runners=settings.runners,
            threads=settings.threads,
            max_batch_rows=settings.max_batch_size,
            max_wait_s=settings.max_wait_us / 1e6,
        ),
        trust=found.trust,
        engines=engines(settings, choice),
    )
    registry = Registry(
        found.folder, loader, settings.default_model, policy.parse(settings.version_policy),
        alone=alone, mirror=found.mirror, trust=found.trust,
        failed=partial(metrics.reload_failed, "model"),
    )  # fmt: skip
    access.when_failed(partial(metrics.reload_failed, "keys"))
    told = observers(settings, version, access)
    context = Context(registry, settings, access, version, metrics, told)
    return Parts(context, create_app(context), choice, told)


def engines(settings: Settings, choice: Choice) -> Wish | None:
    """Which engines may run models; None for what `choice` says.

    Raises:
        CannotStart: they are asked for where they cannot be had.
    """
    wanted = settings.provider
    if wanted == "onnxruntime":
        if settings.max_error:
            raise CannotStart("--max-error is for engines that are measured: add --provider auto.")
        return None
    if choice.providers[0][0] != device.CPU:
        raise CannotStart(f"--provider {wanted} is for CPUs: give --device cpu, or leave it out.")
    from service.engines import budget, table
    from service.engines.pick import Wish

    obstacles = [each.obstacle() for each in table.ENGINES if each.family == wanted]
    if obstacles and all(obstacles):
        raise CannotStart(f"--provider {wanted}: {obstacles[0]}.")
    asked = settings.max_error
    allowed = budget.parse(asked, "--max-error") if asked else None
    return Wish(wanted, allowed, settings.provider_cache)


def grpc(
    context: Context, *, shared: bool, certificates: Certificates | None = None
) -> GrpcServer | None:
    """The gRPC front end, if --grpc-port asks for one."""
    settings = context.settings
    if settings.grpc_port is None:
        return None
    # Its core would log each handshake that a client fails. It reads this as it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from service.protocols.grpc_server import GrpcServer
    except ImportError:
        raise CannotStart(
            "--grpc-port needs the extra [grpc]: pip install 'foldserve[grpc]'."
        ) from None
    if shared and settings.grpc_port == 0:
        raise CannotStart("--grpc-port 0 is a different port in every worker: name one.")
    return GrpcServer(
        context, settings.host, settings.grpc_port, shared=shared, certificates=certificates
    )


def load_counted(
    folder: Path, name: str, version: int, *, metrics: Metrics, **how: Any
) -> model.ServedModel:
    """`model.load`, and the batches of what it gives are counted."""
    served = model.load(folder, name, version, **how)
    served.batcher.execution.observe = metrics.batches(name, version)
    return served


def protocol(context: Context, certificates: Certificates | None = None) -> type[asyncio.Protocol]:
    """uvicorn's protocol for a connection, with the limits of the settings."""
    from service.connections.connection import connection_class
    from service.connections.lifetime import ConnectionLimits

    settings = context.settings
    plain = connection_class(
        ConnectionLimits(
            max_connections=settings.max_connections,
            max_header_bytes=settings.max_header_bytes,
            header_timeout_s=settings.header_timeout_ms / 1000,
            idle_timeout_s=settings.keep_alive_timeout_ms / 1000,
            stall_timeout_s=settings.body_timeout_ms / 1000,
            refused=context.metrics.refused,
            budget=context.budget,
            max_of_one_address=settings.max_connections_per_address,
        )
    )
    if certificates is None:
        return plain
    from service.connections.secured import secured_class

    return secured_class(plain, certificates)
