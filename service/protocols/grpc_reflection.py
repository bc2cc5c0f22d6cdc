"""gRPC server reflection: clients such as grpcurl ask for the services and their messages.

Both versions of the service, which differ in their name only. Over a stream, a question a message:

    list_services                    the names
    file_containing_symbol           the file in which a service, method or message is described
    file_by_filename                 a file by its name
    extensions                       there are none: NOT_FOUND

Source: gRPC, grpc/reflection/v1/reflection.proto.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError

from service.errors import InvalidBody
from service.protocols import grpc_health, grpc_messages
from service.protocols.grpc_streams import Next

METHOD = "ServerReflectionInfo"
_PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
SERVICES = tuple(f"{package}.ServerReflection" for package in _PACKAGES)
MESSAGES = {
    "ServerReflectionRequest": """host:string=1 file_by_filename:string|=3
        file_containing_symbol:string|=4 file_containing_extension:ExtensionRequest|=5
        all_extension_numbers_of_type:string|=6 list_services:string|=7""",
    "ExtensionRequest": "containing_type:string=1 extension_number:int32=2",
    "ServerReflectionResponse": """valid_host:string=1
        original_request:ServerReflectionRequest=2
        file_descriptor_response:FileDescriptorResponse|=4
        all_extension_numbers_response:ExtensionNumberResponse|=5
        list_services_response:ListServiceResponse|=6 error_response:ErrorResponse|=7""",
    "FileDescriptorResponse": "file_descriptor_proto:bytes*=1",
    "ExtensionNumberResponse": "base_type_name:string=1 extension_number:int32*=2",
    "ListServiceResponse": "service:ServiceResponse*=1",
    "ServiceResponse": "name:string=1",
    "ErrorResponse": "error_code:int32=1 error_message:string=2",
}

_NOT_FOUND, _INVALID = 5, 3  # of grpc.StatusCode

# A method: its name, its request, its answer, and whether these come as streams.
_Methods = list[tuple[str, str, str, bool, bool]]


def _of_inference() -> _Methods:
    messages = grpc_messages.MESSAGES
    names = [name.removesuffix("Request") for name in messages if name.endswith("Request")]
    stream = ("ModelStreamInfer", "ModelInferRequest", "ModelStreamInferResponse", True, True)
    return [*((name, f"{name}Request", f"{name}Response", False, False) for name in names), stream]


_ASK, _TELL = "HealthCheckRequest", "HealthCheckResponse"
_OF_HEALTH: _Methods = [("Check", _ASK, _TELL, False, False), ("Watch", _ASK, _TELL, False, True)]
_OF_REFLECTION: _Methods = [
    (METHOD, "ServerReflectionRequest", "ServerReflectionResponse", True, True)
]


def _file(package: str, messages: Mapping[str, str], service: str, methods: _Methods) -> Any:
    file = grpc_messages.described(package, messages)
    described = file.service.add(name=service.removeprefix(f"{package}."))
    for name, request, response, asks, tells in methods:
        described.method.add(
            name=name,
            input_type=f".{package}.{request}",
            output_type=f".{package}.{response}",
            client_streaming=asks,
            server_streaming=tells,
        )
    return file


class Reflection:
    """The one method, for `Streams.handler`."""

    def __init__(self) -> None:
        inference, health = grpc_messages.SERVICE, grpc_health.HEALTH
        files = [
            _file(grpc_messages.PACKAGE, grpc_messages.MESSAGES, inference, _of_inference()),
            _file(grpc_health.PACKAGE, grpc_health.MESSAGES, health, _OF_HEALTH),
            *(
                _file(package, MESSAGES, service, _OF_REFLECTION)
                for package, service in zip(_PACKAGES, SERVICES, strict=True)
            ),
        ]
        self._pool = descriptor_pool.DescriptorPool()
        for file in files:
            self._pool.Add(file)
        self._services = [inference, health, *SERVICES]
        made = grpc_messages.classes(_PACKAGES[0], MESSAGES)
        self._request, self._response = made[_OF_REFLECTION[0][1]], made[_OF_REFLECTION[0][2]]

    async def __call__(self, next_message: Next) -> AsyncIterator[bytes]:
        while (message := await next_message()) is not None:
            try:
                request = self._request.FromString(message)
            except DecodeError:
                raise InvalidBody(
                    "The message cannot be read as a ServerReflectionRequest."
                ) from None
            told = self._response(valid_host=request.host, original_request=request)
            self._answer(request, told)
            yield told.SerializeToString()

    def _answer(self, request: Any, told: Any) -> None:
        match request.WhichOneof("parameter_choice"):
            case "list_services":
                for name in self._services:
                    told.list_services_response.service.add(name=name)
            case "file_by_filename":
                self._tell_file(self._pool.FindFileByName, request.file_by_filename, told)
            case "file_containing_symbol":
                self._tell_file(self._containing, request.file_containing_symbol, told)
            case "file_containing_extension" | "all_extension_numbers_of_type":
                _tell_error(_NOT_FOUND, "There are no extensions.", told)
            case _:
                _tell_error(_INVALID, "The message asks for nothing.", told)

    def _containing(self, symbol: str) -> Any:
        """The file of a symbol; the pool itself knows no methods. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            found.methods_by_name[method]
            return found.file

    def _tell_file(self, find: Any, name: str, told: Any) -> None:
        try:
            file = find(name)
        except KeyError:
            _tell_error(_NOT_FOUND, f"There is no {name[:128]!r} here.", told)
        else:
            told.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)


def _tell_error(code: int, message: str, told: Any) -> None:
    told.error_response.error_code, told.error_response.error_message = code, message
