"""Settings: command-line flags over FOLDSERVE_ environment variables over defaults.

Each field below is one setting: its flag is the name with dashes (`max_body_bytes` is
`--max-body-bytes`), its variable the name in capitals (FOLDSERVE_MAX_BODY_BYTES), its
description the help text. Every quantity has its unit in its name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.engines import budget
from service.manifest import VERSION_POLICY
from service.store.address import is_address

PREFIX = "FOLDSERVE_"

# Scheme, host and port as a browser sends them. "*" would let every page of the web in.
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")

MiB = 1024 * 1024


class Settings(BaseSettings):
    """What one server process is told from outside. Immutable once it runs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="TCP port for gRPC, 8001 by custom (default: no gRPC)"
    )
    grpc_outputs: Literal["raw", "mirror"] = Field(
        "raw", description="tensors of gRPC answers: raw contents, or the form of the request"
    )
    tls_certificate: Path | None = Field(
        None,
        description="PEM file with the server's certificate and those that lead to its root: HTTPS "
        "and gRPC over TLS (default: no TLS)",
    )
    tls_key: Path | None = Field(None, description="PEM file with its private key, not encrypted")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of roots; a client needs a certificate that one of them has signed "
        "(default: clients need none)",
    )
    grpc_keepalive_time_ms: int = Field(
        7_200_000, ge=1, description="silence after which a client over gRPC is pinged"
    )
    grpc_keepalive_timeout_ms: int = Field(
        20_000, ge=1, description="and how long the answer may take, before it is cut off"
    )
    grpc_min_ping_interval_ms: int = Field(
        300_000, ge=0, description="clients that ping more often than that are cut off"
    )
    grpc_max_connection_idle_ms: int | None = Field(
        None,
        ge=1,
        description="without a call for so long, reconnect (default: --keep-alive-timeout-ms)",
    )
    grpc_max_connection_age_ms: int | None = Field(
        None, ge=1, description="after so long, clients over gRPC reconnect (default: never)"
    )
    grpc_max_connection_age_grace_ms: int | None = Field(
        None, ge=1, description="and calls under way are cut off after that (default: never)"
    )
    server_name: str = Field(
        "foldserve",
        pattern=r"^[\x21-\x7e]{1,64}$",
        description="name in V2's metadata, for clients that look for triton or such",
    )
    models: Path | str = Field(
        Path("models"),
        description="folder of models/<name>/<version>/, or the address of one (s3://...)",
    )
    model_cache: Path | None = Field(
        None, description="where models from an address are kept (default: ~/.cache/foldserve)"
    )
    max_model_cache_bytes: int = Field(
        64 * 1024 * MiB, ge=1, description="size of all that is kept there of one address"
    )
    store_timeout_ms: int = Field(
        30_000, ge=1, description="longest wait for a list or for 8 MiB of a file from an address"
    )
    store_attempts: int = Field(
        3, ge=1, le=100, description="how often a read from an address is tried, before it failed"
    )
    default_model: str | None = Field(
        None, description="model that POST /predict uses (default: the only one)"
    )
    version_policy: str = Field(
        "latest",
        pattern=VERSION_POLICY,
        description="versions served of each model: latest, latest:N, all or specific:A,B",
    )
    watch_interval_ms: int = Field(
        5000, ge=0, description="how often the models folder is looked at for changes; 0 never"
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="cuda refuses to start without CUDA, auto falls back to the CPU"
    )
    provider: Literal["onnxruntime", "auto", "openvino"] = Field(
        "onnxruntime",
        description="what runs models on CPUs: auto measures the engines that are installed on "
        "each model's self-test, openvino allows only those of OpenVINO (docs/engines.md)",
    )
    max_error: str = Field(
        "",
        description="how far the engine that is chosen may be off, relative to the largest output, "
        "such as 0.01, or labels: no label of the self-test may change (default: what model.json "
        "says, else as float32 rounds)",
    )
    provider_cache: Path = Field(
        Path("~/.cache/foldserve/engines"), description="where choices of engines are remembered"
    )
    cuda_device_id: int = Field(0, ge=0, le=255, description="which GPU, counted from 0")
    cuda_memory_limit_bytes: int | None = Field(
        None, ge=1, description="GPU memory of one model's arena (default: all there is)"
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="threads of a model's run (default: what the CPUs allow)"
    )
    workers: int = Field(
        1, ge=1, le=256, description="server processes on the port, the CPUs divided among them"
    )
    worker_timeout_ms: int = Field(
        5_000, ge=0, description="a worker silent for so long is killed and replaced; 0 never"
    )
    engine: Literal["plain", "ray"] = Field(
        "plain", description="ray serves with replicas on a Ray cluster (docs/cluster.md)"
    )
    ray_address: str = Field(
        "", description="Ray cluster to join, such as auto (default: one of its own, on this host)"
    )
    min_replicas: int = Field(
        1, ge=1, le=10_000, description="replicas on Ray when there is nothing to do"
    )
    max_replicas: int | None = Field(
        None, ge=1, le=10_000, description="replicas on Ray at most (default: what the CPUs allow)"
    )
    cpus_per_replica: int = Field(
        1, ge=1, le=1024, description="CPUs that a replica on Ray reserves, and its threads"
    )
    gpus_per_replica: float = Field(
        0.0, ge=0, le=64, description="GPUs that a replica on Ray reserves; 0.5 lets two share one"
    )
    target_ongoing_requests: float = Field(
        8.0, gt=0, description="requests under way per replica that Ray scales for"
    )
    scale_window_ms: int = Field(
        15_000, ge=100, description="time over which the requests under way are averaged"
    )
    upscale_delay_ms: int = Field(
        10_000, ge=0, description="how long there must be too much before replicas are added"
    )
    downscale_delay_ms: int = Field(
        300_000, ge=0, description="how long there must be too little before replicas are removed"
    )
    surge_percent: int = Field(
        0,
        ge=0,
        le=100,
        description="replicas in excess during an update, if CPUs are free",
    )
    runners: int | None = Field(
        None, ge=1, le=1024, description="runs of one model at a time (default: as measured)"
    )
    max_batch_size: int | None = Field(
        None, ge=1, description="rows of several requests run together (default: as measured)"
    )
    max_wait_us: int = Field(
        0, ge=0, le=10_000_000, description="how long the first of a batch waits for others"
    )
    queue_capacity_samples: int = Field(
        256, ge=1, description="samples that may wait for one model before 503"
    )
    request_timeout_ms: int = Field(
        30_000, ge=1, description="longest time from a complete request to its answer"
    )
    body_timeout_ms: int = Field(
        30_000, ge=1, description="longest time for the body of a request to arrive"
    )
    header_timeout_ms: int = Field(
        10_000, ge=1, description="longest time for the headers of a request to arrive"
    )
    keep_alive_timeout_ms: int = Field(
        75_000, ge=1, description="how long an idle connection stays open"
    )
    max_body_bytes: int = Field(16 * MiB, ge=1, description="largest request body")
    max_tensor_bytes: int = Field(
        64 * MiB, ge=1, description="largest tensor that a request may bring, once it is decoded"
    )
    max_header_bytes: int = Field(
        32 * 1024, ge=1, le=MiB, description="largest request line and headers"
    )
    max_in_flight_bytes: int | None = Field(
        None,
        ge=1,
        description="memory of all requests together, before 503 (default: 256 MiB, or as much "
        "as the largest body and pictures take)",
    )
    response_cache_bytes: int = Field(
        0,
        ge=0,
        description="answers that are kept, and given again to the same request without a run; "
        "0 keeps none",
    )
    max_connections: int = Field(
        1000, ge=1, le=1_000_000, description="open connections, before 503"
    )
    max_connections_per_address: int | None = Field(
        None, ge=1, description="of these from one address (default: seven of eight)"
    )
    max_image_pixels: int = Field(
        40_000_000, ge=1, description="pixels of the images of one request, before resizing"
    )
    nan_policy: Literal["null", "error"] = Field(
        "null", description="answer non-finite outputs as null with a warning, or as an error"
    )
    ready_when: Literal["one", "all"] = Field(
        "one", description="ready with at least one model that works, or only with all of them"
    )
    drain_delay_ms: int = Field(
        0, ge=0, description="after SIGTERM, time to serve on while load balancers notice"
    )
    drain_timeout_ms: int = Field(
        10_000, ge=0, description="after that, longest time to finish requests under way"
    )
    api_keys_file: Path | None = Field(
        None, description="file with a key a line; who sends none of them gets 401 (default: open)"
    )
    admin_keys_file: Path | None = Field(
        None, description="the same for loading and unloading models (default: nobody may)"
    )
    require_signature: Path | None = Field(
        None,
        description="file of public keys or root certificates; a version that none of them has "
        "signed is not served (default: signatures are not looked at)",
    )
    cors_origins: str = Field(
        "",
        description="origins whose pages may read answers, exact and with commas between "
        "(default: none)",
    )
    metrics: Literal["open", "key", "off"] = Field(
        "key", description="who may read GET /metrics: all, who has a key if keys are used, nobody"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level that is logged to stderr"
    )
    log_format: Literal["text", "json"] = Field("text", description="how a line of the log looks")
    access_log_every_requests: int = Field(
        0, ge=0, description="a line of the log for one in so many requests; 0 for none"
    )
    otlp_endpoint: str = Field(
        "",
        description="where traces go by OTLP over HTTP, such as http://host:4318/v1/traces "
        "(default: no traces)",
    )

    @property
    def budget_bytes(self) -> int:
        """`max_in_flight_bytes`, by default what one request of the largest size fits into.

        A picture takes 4 bytes a pixel, and twice that while it is turned; a body as it came, and
        the tensor of it. An eighth of the budget is kept for small requests, and a quarter for
        messages of gRPC that arrive.
        """
        if self.max_in_flight_bytes is not None:
            return self.max_in_flight_bytes
        largest = self.max_body_bytes + max(8 * self.max_image_pixels, self.max_tensor_bytes)
        needed = max(256 * MiB, -(-largest * 8 // 7))
        return needed if self.grpc_port is None else -(-needed * 4 // 3)

    @field_validator("models", mode="before")
    @classmethod
    def _folder_or_address(cls, value: object) -> object:
        return Path(value) if isinstance(value, str) and not is_address(value) else value

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, value: str) -> str:
        for origin in value.split(",") if value else ():
            if not _ORIGIN.fullmatch(origin.strip()):
                raise ValueError(f"{origin.strip()!r} is not an origin such as https://example.org")
        return value

    @field_validator("max_error")
    @classmethod
    def _a_budget(cls, value: str) -> str:
        if value:
            budget.parse(value, "--max-error")
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _over_http(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("they go over HTTP, to an address such as http://host:4318/v1/traces")
        return value

    @field_validator("port", mode="before")
    @classmethod
    def _not_a_service_link(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith(("tcp://", "udp://")):
            return 8000  # FOLDSERVE_PORT=tcp://10.0.0.1:80 is Kubernetes talking, not the user
        return value
