"""The messages of the Open Inference Protocol's gRPC form, package `inference`.

Written down here as `name:type=number` (`*` repeated, `{}` a map from string, `|` a member of
the message's oneof) and made into classes by protobuf itself, in a descriptor pool of their own:
a client library that registers the same package in the same process does not clash with them.
An enumeration is `enum NAME=number ...`.

Source: Open Inference Protocol, open_inference_grpc.proto; the repository messages are
Triton's, grpc_service.proto.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from service.protocols import grpc_triton

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool=1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool=1",
    "ModelReadyRequest": "name:string=1 version:string=2",
    "ModelReadyResponse": "ready:bool=1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string=1 version:string=2 extensions:string*=3",
    "ModelMetadataRequest": "name:string=1 version:string=2",
    "ModelMetadataResponse": """name:string=1 versions:string*=2 platform:string=3
        inputs:ModelMetadataResponse.TensorMetadata*=4
        outputs:ModelMetadataResponse.TensorMetadata*=5 properties:string{}=6""",
    "ModelMetadataResponse.TensorMetadata": "name:string=1 datatype:string=2 shape:int64*=3",
    "InferParameter": """bool_param:bool|=1 int64_param:int64|=2 string_param:string|=3
        double_param:double|=4 uint64_param:uint64|=5""",
    "InferTensorContents": """bool_contents:bool*=1 int_contents:int32*=2
        int64_contents:int64*=3 uint_contents:uint32*=4 uint64_contents:uint64*=5
        fp32_contents:float*=6 fp64_contents:double*=7 bytes_contents:bytes*=8""",
    "ModelInferRequest": """model_name:string=1 model_version:string=2 id:string=3
        parameters:InferParameter{}=4 inputs:ModelInferRequest.InferInputTensor*=5
        outputs:ModelInferRequest.InferRequestedOutputTensor*=6 raw_input_contents:bytes*=7""",
    "ModelInferRequest.InferInputTensor": """name:string=1 datatype:string=2 shape:int64*=3
        parameters:InferParameter{}=4 contents:InferTensorContents=5""",
    "ModelInferRequest.InferRequestedOutputTensor": "name:string=1 parameters:InferParameter{}=2",
    "ModelInferResponse": """model_name:string=1 model_version:string=2 id:string=3
        parameters:InferParameter{}=4 outputs:ModelInferResponse.InferOutputTensor*=5
        raw_output_contents:bytes*=6""",
    "ModelInferResponse.InferOutputTensor": """name:string=1 datatype:string=2 shape:int64*=3
        parameters:InferParameter{}=4 contents:InferTensorContents=5""",
    "ModelStreamInferResponse": "error_message:string=1 infer_response:ModelInferResponse=2",
    "ModelRepositoryParameter": """bool_param:bool|=1 int64_param:int64|=2
        string_param:string|=3 bytes_param:bytes|=4""",
    "RepositoryIndexRequest": "repository_name:string=1 ready:bool=2",
    "RepositoryIndexResponse": "models:RepositoryIndexResponse.ModelIndex*=1",
    "RepositoryIndexResponse.ModelIndex": """name:string=1 version:string=2 state:string=3
        reason:string=4""",
    "RepositoryModelLoadRequest": """repository_name:string=1 model_name:string=2
        parameters:ModelRepositoryParameter{}=3""",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": """repository_name:string=1 model_name:string=2
        parameters:ModelRepositoryParameter{}=3""",
    "RepositoryModelUnloadResponse": "",
    **grpc_triton.MESSAGES,
}

_FIELD = re.compile(r"(\w+):([\w.]+)(\*|\||\{\})?=(\d+)")
_ONEOF = "parameter_choice"
_Field = descriptor_pb2.FieldDescriptorProto
_REPEATED = _Field.Label.Value("LABEL_REPEATED")
_OPTIONAL = _Field.Label.Value("LABEL_OPTIONAL")
_MESSAGE = _Field.Type.Value("TYPE_MESSAGE")
_ENUM = _Field.Type.Value("TYPE_ENUM")


def classes(package: str = PACKAGE, messages: Mapping[str, str] = MESSAGES) -> dict[str, type[Any]]:
    """The message classes by name, such as "ModelInferRequest"."""
    file = described(package, messages)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name, fields in messages.items()
        if not fields.startswith("enum ")
    }


def described(package: str, messages: Mapping[str, str]) -> Any:
    """The FileDescriptorProto of a package."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"foldserve/{package}.proto", package=package, syntax="proto3"
    )
    made: dict[str, Any] = {}
    for name, fields in messages.items():
        outer, _, inner = name.partition(".")
        if fields.startswith("enum "):
            kinds = made[outer].enum_type if inner else file.enum_type
            values = kinds.add(name=inner or outer).value
            for each in fields.split()[1:]:
                values.add(name=each.partition("=")[0], number=int(each.partition("=")[2]))
            continue
        message = made[outer].nested_type.add() if inner else file.message_type.add()
        message.name = inner or outer
        made[name] = message
        for field in _FIELD.findall(fields):
            _add_field(message, (package, name), messages, *field)
    return file


def _add_field(
    message: Any,
    path: tuple[str, str],
    messages: Mapping[str, str],
    name: str,
    kind: str,
    mark: str,
    number: str,
) -> None:
    field = message.field.add(name=name, number=int(number))
    field.label = _REPEATED if mark in ("*", "{}") else _OPTIONAL
    if mark == "{}":
        # A map is a repeated message of key and value, with this very name.
        entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
        entry.options.map_entry = True
        key = entry.field.add(name="key", number=1, label=_OPTIONAL)
        key.type = _Field.Type.Value("TYPE_STRING")
        value = entry.field.add(name="value", number=2, label=_OPTIONAL)
        _set_type(value, kind, path[0], messages)
        kind = f"{path[1]}.{entry.name}"
    elif mark == "|":
        if not message.oneof_decl:
            message.oneof_decl.add(name=_ONEOF)
        field.oneof_index = 0
    _set_type(field, kind, path[0], messages)


def _set_type(field: Any, kind: str, package: str, messages: Mapping[str, str]) -> None:
    if kind[0].isupper():
        field.type = _ENUM if messages.get(kind, "").startswith("enum ") else _MESSAGE
        field.type_name = f".{package}.{kind}"
    else:
        field.type = _Field.Type.Value(f"TYPE_{kind.upper()}")
