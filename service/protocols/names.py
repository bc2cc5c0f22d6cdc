"""The names of the models that answer, for GET /v1/models and GET /v2/models.

Source: KServe, its REST routes "list models" of both protocols.
"""

from __future__ import annotations

import orjson

from service.protocols import shapes
from service.protocols.call import Reply
from service.protocols.routes import Fixed


class Names(Fixed):
    """{"models": ["a", "b"]}, in alphabetical order."""

    error_body = staticmethod(shapes.one_text)

    def reply(self, params: dict[str, str]) -> Reply:  # noqa: ARG002
        names = [model.name for model in self.context.registry.served()]
        return Reply(orjson.dumps({"models": names}))
