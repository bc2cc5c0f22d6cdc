"""`python -m service --engine ray`: a Ray of its own, or one to join, from the start to the drain.

    start   the port is tried first; Ray starts without a dashboard, on 127.0.0.1 only; the proxies,
            then the replicas, whose models are loaded when the banner is printed
    drain   SIGTERM or Ctrl-C: served on for --drain-delay-ms; then no replica takes new requests,
            those under way are finished within --drain-timeout-ms; exit code 0
            a second signal: the end at once

In a cluster that was joined (--ray-address), the signal takes this application away, and leaves
Ray and other applications alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

from service import cpu, listen, source
from service.cluster import plan as cluster_plan
from service.cluster.imports import of_this_package
from service.listen import CannotStart
from service.settings import Settings
from service.settings_read import variable

_TICK_S = 0.2
_PORTS = range(20_000, 32_768)
_PORTS_TRIED = 20
_ENDING = (signal.SIGTERM, signal.SIGINT)
# Ray asks for a third of the memory by default; nothing is put there but large answers.
_OBJECT_STORE_BYTES = 128 * 1024 * 1024
# What the proxies need to know; they have no other way than their environment.
_FOR_PROXIES = ("max_body_bytes", "body_timeout_ms")


def run(settings: Settings, version: str) -> int:
    """Run until a signal; the exit code is returned.

    Args:
        settings: with engine "ray".

    Raises:
        CannotStart: no Ray, no repository, no keys, no port, replicas that cannot be.
    """
    source.check(settings)  # a store is for the replicas to reach
    own = not settings.ray_address
    if own:
        settings = settings.model_copy(update={"port": _port(settings)})
        cluster_plan.plan(settings, cpu.available().threads)  # before Ray takes its time
    told = {name: getattr(settings, name) for name in _FOR_PROXIES}
    for name, value in {**told, "max_in_flight_bytes": settings.budget_bytes}.items():
        os.environ[variable(name)] = str(value)
    if own or settings.ray_address.startswith(("127.", "localhost:")):
        os.environ.update(cluster_plan.ALONE)
    cluster_plan.prepare(os.environ)
    from service.cluster import application  # Ray takes a second, and may not be there

    signals = _Signals()
    try:
        with signals, _connected(settings, own):
            signals.install()  # Ray has put its own in their place
            try:
                _deploy(application, settings, version, own)
                signals.wait()
                time.sleep(settings.drain_delay_ms / 1000)
            finally:
                _take_away(own)
    except _Stopped:
        pass
    return 0


def _port(settings: Settings) -> int:
    """The port, tried before Ray takes its time; in place of 0 one that is free.

    Ray's processes open dozens of ports of the system's choice before the proxy opens this one,
    so it is none of those that the system chooses from (32768 on, on Linux), nor of those that
    Ray chooses from itself (10002 to 19999).
    """
    for _ in range(_PORTS_TRIED if settings.port == 0 else 0):
        with contextlib.suppress(CannotStart):
            port = random.choice(_PORTS)  # noqa: S311  no secret
            listen.bind(settings.host, port).close()
            return port
    with listen.bind(settings.host, settings.port) as listener:
        found: int = listener.getsockname()[1]
        return found


@contextlib.contextmanager
def _connected(settings: Settings, own: bool) -> Iterator[None]:
    """Ray, from its start (or from joining it) to its end (or to leaving it)."""
    import ray

    try:
        with warnings.catch_warnings(), of_this_package(os.environ):
            warnings.simplefilter("ignore")  # Ray's, about its own next versions
            if own:
                ray.init(
                    address="local",
                    num_cpus=cpu.available().threads,
                    include_dashboard=False,
                    namespace="serve",
                    object_store_memory=_OBJECT_STORE_BYTES,
                    logging_level="warning",
                )
            else:
                ray.init(address=settings.ray_address, namespace="serve", logging_level="warning")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CannotStart(f"Ray does not start: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _deploy(application: Any, settings: Settings, version: str, own: bool) -> None:
    from ray import serve

    cpus = application.cluster_cpus()
    plan = cluster_plan.plan(settings, cpus)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            serve.start(
                proxy_location="HeadOnly" if own else "EveryNode",
                http_options=plan.http,
                logging_config={"enable_access_log": False, "log_level": "WARNING"},
            )
        except RuntimeError as error:
            raise CannotStart(f"Ray's proxy does not start: {error}") from None
        try:
            serve.run(application.build(settings, cpus), name=cluster_plan.APP, route_prefix="/")
        except RuntimeError as error:
            raise CannotStart(f"No replica became ready: {error}") from None
    sys.stdout.write(_banner(settings, version, plan.replicas, cpus, application.address()) + "\n")
    sys.stdout.flush()


def _take_away(own: bool) -> None:
    from ray import serve

    with contextlib.suppress(RuntimeError):  # it was not deployed
        serve.delete(cluster_plan.APP)  # which waits until the replicas are drained
    if own:
        serve.shutdown()


class _Stopped(BaseException):
    """A signal came while replicas were still being started."""


class _Signals:
    """The first signal ends `wait`, or what comes before it; a second one ends the process."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._waiting = False

    def __enter__(self) -> None:
        self._before = {number: signal.getsignal(number) for number in _ENDING}
        self.install()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Handle the signals from now on."""
        for number in _ENDING:
            signal.signal(number, self._stop)

    def wait(self) -> None:
        """Until the first signal."""
        self._waiting = True
        while not self._came.wait(_TICK_S):
            pass

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._came.is_set():
            os._exit(128 + number)
        self._came.set()
        if not self._waiting:
            raise _Stopped


def _banner(settings: Settings, version: str, most: int, cpus: int, address: str) -> str:
    from service.app import TITLE

    url = f"http://{settings.host}:{settings.port}"
    return "\n".join(
        [
            f"{TITLE} {version}",
            f"  url      {url}",
            f"  docs     {url}/docs",
            f"  replicas {settings.min_replicas} to {most} on Ray, "
            f"{settings.cpus_per_replica} of {cpus} CPUs each",
            f"  ray      {address}",
            "  ready    yes",
        ]
    )
