"""How gRPC's library treats connections, by the settings; it knows the options by these names.

    keep-alive       a ping after a time without traffic, and the end if it is not answered
    pings            of clients, at what interval at the least; more than two before are the end
    age, idleness    after which a client is told to connect anew: it sends no call twice for that

Source: gRPC, doc/keepalive.md and proposal A9 (server-side connection management).
"""

from __future__ import annotations

from service.settings import Settings

# Room for names and shapes beside the tensors that --max-body-bytes is about.
_ENVELOPE_BYTES = 64 * 1024

# option: setting; a setting without a value leaves the library's own, which is never. Only an idle
# connection ends all the same, as one over HTTP does.
_SETTINGS = {
    "grpc.keepalive_time_ms": "grpc_keepalive_time_ms",
    "grpc.keepalive_timeout_ms": "grpc_keepalive_timeout_ms",
    # Without it a client that acknowledges no ping at all is kept for a minute all the same.
    "grpc.http2.ping_timeout_ms": "grpc_keepalive_timeout_ms",
    "grpc.http2.min_ping_interval_without_data_ms": "grpc_min_ping_interval_ms",
    "grpc.max_connection_idle_ms": "grpc_max_connection_idle_ms",
    "grpc.max_connection_age_ms": "grpc_max_connection_age_ms",
    "grpc.max_connection_age_grace_ms": "grpc_max_connection_age_grace_ms",
}


def largest_message(settings: Settings) -> int:
    """In bytes."""
    return settings.max_body_bytes + _ENVELOPE_BYTES


def options(settings: Settings, *, shared: bool) -> list[tuple[str, int]]:
    """For grpc.aio.server.

    Args:
        shared: whether other processes listen on its port as well.
    """
    chosen = [(option, getattr(settings, name)) for option, name in _SETTINGS.items()]
    if settings.grpc_max_connection_idle_ms is None:  # or the idle would take all places for ever
        chosen.append(("grpc.max_connection_idle_ms", settings.keep_alive_timeout_ms))
    return [
        # Alone, a port in use is an error, and calls are not spread at random.
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", largest_message(settings)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", settings.header_timeout_ms),
        ("grpc.http2.bdp_probe", 0),  # it raises what is read before it is asked for
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.keepalive_permit_without_calls", 1),
        *((option, value) for option, value in chosen if value is not None),
    ]
