"""OTLP/HTTP: a receiver of OpenTelemetry's logs, metrics and traces, which become events.

Protobuf or JSON, plain or gzip. A request that is answered 200 is on disk; one that is sent again changes nothing.
"""

from __future__ import annotations

import zlib

import msgspec
from litestar import Response, post

from sessionstore.adapters.otlp import partial_success, records
from sessionstore.adapters.otlp_levels import Signal
from sessionstore.adapters.telemetry import EVENTS
from sessionstore.model.folds import Document
from sessionstore.model.lines import MAX_LINES
from sessionstore.model.problems import Problem
from sessionstore.web import openapi_models as answers
from sessionstore.web.fast_path import is_put_off, stored_lines
from sessionstore.web.openapi import JSON, OF_TELEMETRY, PROTOBUF, described
from sessionstore.web.openapi_models import gives
from sessionstore.web.request import Call, caller_of, check_media_type, headers_of, read_body, store_of

CODING = b"content-encoding"
MAX_BYTES = 4 << 20
"""Of a request, unpacked: of the smallest records that there are it takes 70 times as much memory to read."""
REJECTED = {"logs": "rejectedLogRecords", "traces": "rejectedSpans", "metrics": "rejectedDataPoints"}


PATHS: dict[str, Signal] = {"/v1/logs": "logs", "/v1/traces": "traces", "/v1/metrics": "metrics"}


@post(
    list(PATHS),
    operation_class=described(OF_TELEMETRY),
    responses=gives(answers.Telemetry, 400, 413, 415),
    status_code=200,
    tags=["telemetry"],
)
async def receive_telemetry(request: Call) -> Response[bytes]:
    """Take what OpenTelemetry exports: agents, tool calls, and what requests to models used."""
    signal = PATHS[request.scope["path"].rstrip("/")]
    store, headers = store_of(request), headers_of(request)
    media_type = check_media_type({name: value for name, value in headers.items() if name != CODING}, JSON, PROTOBUF)
    body = await read_body(request.receive, MAX_BYTES)  # type: ignore[arg-type]
    coding = headers.get(CODING, b"identity").lower()
    lines = await store.writer.beside(lines_of, signal, body, coding, media_type == JSON)
    said = await stored_lines(lines, caller_of(request), store) if lines else {}
    if said and is_put_off(said):  # what the answer says is rejected is sent by nobody again
        raise Problem(429, said["rejected"][0].detail, headers={"retry-after": "1"})
    return told(signal, said, media_type)


def lines_of(signal: Signal, body: bytes, coding: bytes, is_json: bool) -> bytes:
    """The lines of a batch that the records of a request become. Raises Problem 400, 413, 415."""
    found = EVENTS[signal](records(signal, unpacked(body, coding), is_json=is_json))
    lines = [msgspec.json.encode(line) for line in found]
    if len(lines) > MAX_LINES:
        raise Problem(413, f"A request may become at most {MAX_LINES} events: let the exporter send smaller batches")
    return b"\n".join(lines)


def unpacked(body: bytes, coding: bytes) -> bytes:
    """Raises Problem 400 for what is no gzip, 413 for what would be more than MAX_BYTES, 415 for other codings."""
    if coding == b"identity":
        return body
    if coding != b"gzip":
        raise Problem(415, "The body must be sent as it is, or as gzip", headers={"accept-encoding": "gzip, identity"})
    unzip = zlib.decompressobj(wbits=31)
    try:
        plain = unzip.decompress(body, MAX_BYTES + 1)
    except zlib.error as error:
        raise Problem(400, f"The body is no gzip: {error}") from None
    if len(plain) > MAX_BYTES:
        raise Problem(413, f"The body may have at most {MAX_BYTES} bytes when it is unpacked: send smaller batches")
    if not unzip.eof:
        raise Problem(400, "The body is no gzip: it ends too soon")
    if unzip.unused_data:
        raise Problem(400, "The body is no gzip: it goes on behind its end")
    return plain


def told(signal: Signal, said: Document, media_type: str) -> Response[bytes]:
    """What OTLP answers: nothing, or how many records were not taken, and why the first was not."""
    number = said.get("rejectedTotal", 0)
    why = said["rejected"][0].detail if number else ""
    if media_type == PROTOBUF:
        return Response(partial_success(number, why) if number else b"", media_type=PROTOBUF)
    partial = {"partialSuccess": {REJECTED[signal]: str(number), "errorMessage": why}} if number else {}
    return Response(msgspec.json.encode(partial), media_type=JSON)
