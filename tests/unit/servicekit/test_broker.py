"""What a message's properties are read as, whatever a producer wrote there."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import BasicProperties
from pika.frame import decode_frame

from servicekit.events import broker

TYPE, ENCODING, HEADERS, ID = (
    BasicProperties.FLAG_CONTENT_TYPE,
    BasicProperties.FLAG_CONTENT_ENCODING,
    BasicProperties.FLAG_HEADERS,
    BasicProperties.FLAG_MESSAGE_ID,
)


def short(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def table(*fields: bytes) -> bytes:
    whole = b"".join(fields)
    return struct.pack(">I", len(whole)) + whole


def header(name: bytes, kind: bytes, value: bytes) -> bytes:
    return short(name) + kind + value


def frame(flags: int, *properties: bytes) -> bytes:
    payload = struct.pack(">HHQH", BasicProperties.INDEX, 0, 2, flags) + b"".join(properties)
    return struct.pack(">BHL", 2, 1, len(payload)) + payload + b"\xce"


def read(raw: bytes) -> BasicProperties:
    consumed, found = decode_frame(raw)
    assert consumed == len(raw)
    return found.properties


ODD_HEADERS = {
    "a timestamp in milliseconds": header(b"at", b"T", struct.pack(">Q", 1_795_225_080_516)),
    "the largest timestamp": header(b"at", b"T", b"\xff" * 8),
    "a float that is no number": header(b"f", b"f", struct.pack(">f", float("nan"))),
    "a double that has no end": header(b"d", b"d", struct.pack(">d", float("inf"))),
    "a decimal with 255 places": header(b"D", b"D", struct.pack(">Bi", 255, -1)),
    "a type that there is not": header(b"Z", b"Z", b"\1\2\3"),
    "a text cut short": header(b"S", b"S", struct.pack(">I", 1000) + b"abc"),
    "a name in cp1251": header("имя".encode("cp1251"), b"S", struct.pack(">I", 3) + b"\xff\xfe\0"),
    "tables in tables": header(b"F", b"F", struct.pack(">I", 0)) * 3,
    "an array that is longer than its table": header(b"A", b"A", struct.pack(">I", 2**31) + b"V"),
    "ten thousand arrays in each other": header(
        b"A", b"A", b"".join(struct.pack(">I", 5 * left) + b"A" for left in range(10_000, 0, -1)) + b"\0\0\0\0"
    ),
}


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_no_header_keeps_a_message_from_being_read(name):
    properties = read(frame(HEADERS | ID, table(ODD_HEADERS[name]), short(b"m-1")))

    assert properties.message_id == "m-1"


def test_headers_that_can_be_read_are():
    properties = read(
        frame(
            TYPE | HEADERS | ID,
            short(b"application/json"),
            table(header(b"x-reason", b"S", struct.pack(">I", 2) + b"no")),
            short(b"m-1"),
        )
    )

    assert (properties.content_type, properties.headers) == ("application/json", {"x-reason": "no"})
    assert properties.message_id == "m-1"


@given(headers=st.binary(max_size=60), content_type=st.binary(max_size=20), message_id=st.binary(max_size=20))
def test_whatever_is_in_the_table_of_headers_the_id_is_the_id(headers, content_type, message_id):
    properties = read(frame(TYPE | HEADERS | ID, short(content_type), table(headers), short(message_id)))

    found = properties.message_id
    assert (found.encode() if isinstance(found, str) else found) == message_id


@given(flags=st.integers(0, 0xFFFF), properties=st.binary(max_size=80))
@example(flags=HEADERS, properties=b"")
@example(flags=ENCODING | HEADERS | ID, properties=b"\xff")
def test_nothing_in_the_properties_ends_the_connection(flags, properties):
    read(frame(flags, properties))


ANSWERS = {
    "nothing": b"",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "another version": b"AMQP\0\0\x08\0",
    "no frame": b"\0" * 64,
    "a frame without an end": b"\x01\0\0\xff\xff\xff\xff",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_who_accepts_a_connection_and_does_not_speak_amqp_is_a_broker_that_is_away(answer, monkeypatch):
    monkeypatch.setattr(broker, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:
        asked = thread.submit(broker.BrokerLink, f"amqp://127.0.0.1:{server.getsockname()[1]}", name="a test")
        connection, _ = server.accept()
        with connection:
            connection.sendall(answer)
            with pytest.raises(broker.BrokerAway):
                asked.result(10)
