"""gRPC's health service, asked as its own clients ask: with protobuf's messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from edgekit.server.door import Door
from edgekit.server.listen import Listener, serve
from edgekit.server.observe import probe
from edgekit.server.service import Service
from tests.enrolled import Enrolled

FIELD = descriptor_pb2.FieldDescriptorProto
SERVING = 1


def messages() -> tuple[Any, Any]:
    """HealthCheckRequest and HealthCheckResponse, as grpc.health.v1 has them, made by protobuf itself."""
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    of = ".grpc.health.v1.HealthCheckResponse.ServingStatus"
    response.field.add(name="status", number=1, type=FIELD.TYPE_ENUM, type_name=of, label=FIELD.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("HealthCheckRequest", "HealthCheckResponse")
    made = [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.health.v1.{name}")) for name in names]
    return made[0], made[1]


REQUEST, RESPONSE = messages()


def asked(channel: Any, service: str) -> int:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check", REQUEST.SerializeToString, RESPONSE.FromString
    )  # fmt: skip
    status: int = check(REQUEST(service=service), timeout=300).status
    return status


@pytest.mark.parametrize("service", ["", "edgekit.Line"])
def test_a_server_that_listens_serves(listener: Listener, service: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
        assert asked(channel, service) == SERVING


def test_another_service_is_not_found(listener: Listener) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            asked(channel, "other.Service")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND and "edgekit.Line" in caught.value.details()


def test_a_server_that_ended_does_not_answer(service: Service) -> None:
    listener = serve(service, "127.0.0.1:0", 1)
    with grpc.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
        assert asked(channel, "") == SERVING
        listener.stop(0)
        with pytest.raises(grpc.RpcError) as caught:
            asked(channel, "")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_with_tls_a_probe_needs_a_certificate(service: Service, tmp_path: Path) -> None:
    enrolled = Enrolled(tmp_path)
    listener = serve(service, "127.0.0.1:0", 1, door=Door(enrolled.folder))
    address = f"127.0.0.1:{listener.port}"
    try:
        mine = grpc.ssl_channel_credentials(*enrolled.identity("probe").read())
        with grpc.secure_channel(address, mine) as channel:
            assert asked(channel, "") == SERVING
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            asked(channel, "")
    finally:
        listener.stop(0)


class NotFound(Exception):
    pass


class Context:
    def abort(self, code: Any, details: str) -> None:
        assert code is grpc.StatusCode.NOT_FOUND and details
        raise NotFound


@given(st.binary(max_size=20))
def test_any_request_is_answered_or_not_found(request: bytes) -> None:
    try:
        assert probe.check(request, Context()) == probe.SERVING
    except NotFound:
        assert request not in probe.ASKED


def test_the_bytes_are_protobufs() -> None:
    asks: Callable[..., bytes] = lambda service: REQUEST(service=service).SerializeToString()  # noqa: E731
    assert {asks(""), asks(probe.LINE)} < set(probe.ASKED)
    assert RESPONSE.FromString(probe.SERVING).status == SERVING
    assert RESPONSE(status=SERVING).SerializeToString() == probe.SERVING
