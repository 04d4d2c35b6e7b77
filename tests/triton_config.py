"""The part of Triton's `model_config.proto` that bundles use, for protobuf's own text parser to read strictly."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _F.TYPE_STRING, "int32": _F.TYPE_INT32, "int64": _F.TYPE_INT64, "uint64": _F.TYPE_UINT64}
_ENUMS = {
    "DataType": ("TYPE_INVALID", "TYPE_FP16", "TYPE_FP32", "TYPE_UINT8"),
    "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU"),
}
_MESSAGES = {
    "Tensor": ("name string", "data_type DataType", "dims* int64"),
    "InstanceGroup": ("count int32", "kind Kind"),
    "DynamicBatching": ("preferred_batch_size* int32", "max_queue_delay_microseconds uint64"),
    "Parameter": ("string_value string",),
    "ParametersEntry": ("key string", "value Parameter"),
    "ModelConfig": (
        "name string",
        "backend string",
        "max_batch_size int32",
        "input* Tensor",
        "output* Tensor",
        "instance_group* InstanceGroup",
        "dynamic_batching DynamicBatching",
        "parameters* ParametersEntry",
    ),
}


def parse_config(text: str) -> Any:
    """The `ModelConfig` of a `config.pbtxt`. An unknown field, kind or type is a `ParseError`."""
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", package="triton", syntax="proto3")
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields, start=1):
            _add_field(message, *field.split(), number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))()
    return text_format.Parse(text, config)


def _add_field(message: Any, name: str, kind: str, number: int) -> None:
    field = message.field.add(name=name.rstrip("*"), number=number)
    field.label = _F.LABEL_REPEATED if name.endswith("*") else _F.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _F.TYPE_ENUM if kind in _ENUMS else _F.TYPE_MESSAGE
        field.type_name = f".triton.{kind}"
