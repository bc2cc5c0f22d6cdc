"""All servers, in the order of the tables. To add one: a file in `peers`, and its row here."""

from __future__ import annotations

from benchmarks.serving.peer import Peer
from benchmarks.serving.peers import (
    bento_ml,
    fastapi_tutorial,
    foldserve,
    k_serve,
    lit_serve,
    ml_server,
    mosec_server,
    pytriton_server,
    ray_serve,
)

PEERS: tuple[Peer, ...] = (
    foldserve.PEER,
    foldserve.WORKERS,
    mosec_server.PEER,
    mosec_server.WORKERS,
    pytriton_server.PEER,
    k_serve.PEER,
    bento_ml.PEER,
    ml_server.PEER,
    fastapi_tutorial.PEER,
    lit_serve.PEER,
    ray_serve.PEER,
)
