"""What the OpenAPI document says of parameters and bodies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)
from litestar.openapi.spec import Parameter as OpenAPIParameter

from sessionstore.model.events import ID_PATTERN

JSON = "application/json"


MERGE_PATCH = "application/merge-patch+json"


NDJSON = "application/x-ndjson"


PROTOBUF = "application/x-protobuf"


def header(name: str, meaning: str, **schema: Any) -> OpenAPIParameter:
    return OpenAPIParameter(
        name=name,
        param_in="header",
        required=False,
        description=meaning,
        schema=Schema(type=OpenAPIType.STRING, **schema),
    )


KEY_PATTERN = f"""{ID_PATTERN}|{ID_PATTERN.replace("^", '^"').replace("$", '"$')}"""
"""An id, with quotation marks around it or without."""


OF_A_WRITE = (
    header("Idempotency-Key", "The event's id, where the body has no `eventId`", pattern=KEY_PATTERN),
    header("X-Timestamp", "When it happened, where the body has no `timestamp`", format=OpenAPIFormat.DATE_TIME),
    header("X-User-Id", "Whose the session is, if this creates it", min_length=1, max_length=256),
)


OF_A_CONDITIONAL_WRITE = (*OF_A_WRITE, header("If-Match", "Versions of the state, as ETag has them; `*` is any"))
"""The headers that a handler reads itself."""


def body_of_shape(shape: type[msgspec.Struct], *media_types: str, is_required: bool = True) -> RequestBody:
    """`shape` is what the body must be; more members may come."""
    _, parts = msgspec.json.schema_components([shape])
    schema: Any = parts[shape.__name__] | {"additionalProperties": True}
    content = {media_type: OpenAPIMediaType(schema=schema) for media_type in media_types or (JSON,)}
    return RequestBody(content=content, required=is_required)


def described(
    body: RequestBody | None = None, headers: Sequence[OpenAPIParameter] = (), **told: str
) -> type[Operation]:
    """The operation of a handler that reads its body and headers itself, and tells the headers `told` in its answer."""

    @dataclasses.dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            self.request_body = body
            self.parameters = [*(self.parameters or ()), *headers] or None
            for name, meaning in told.items():
                shown = OpenAPIHeader(description=meaning, schema=Schema(type=OpenAPIType.STRING))
                response: Any = (self.responses or {})["200"]
                response.headers = {**(response.headers or {}), name: shown}

    return Described


def tells_also(*media_types: str) -> type[Operation]:
    """The operation of a handler whose answer may also be text of one of these."""

    @dataclasses.dataclass
    class TellsAlso(Operation):
        def __post_init__(self) -> None:
            response: Any = (self.responses or {})["200"]
            text = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
            response.content = {**(response.content or {}), **dict.fromkeys(media_types, text)}

    return TellsAlso


def takes(
    shape: type[msgspec.Struct],
    *media_types: str,
    is_required: bool = True,
    headers: Sequence[OpenAPIParameter] = OF_A_WRITE,
) -> type[Operation]:
    return described(body_of_shape(shape, *media_types, is_required=is_required), headers)


LINES = RequestBody(
    content={NDJSON: OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))},
    description=(
        "Events of the shape that the lists of events have, one a line; or, of the type `hook`, the payload of a hook "
        "as `data`, with `eventId`, `timestamp`, `userId`, `sessionId`, and what docs/api.md lists besides"
    ),
    required=True,
)


OF_TELEMETRY = RequestBody(
    content={kind: OpenAPIMediaType(schema=Schema()) for kind in (JSON, PROTOBUF)},
    description="An export request of OTLP, plain or gzip",
    required=True,
)
TRANSCRIPT = RequestBody(
    content={NDJSON: OpenAPIMediaType(schema=Schema())},
    description="Lines of a conversation, kept as they are",
    required=True,
)


OF_AN_IMPORT = RequestBody(
    content={kind: OpenAPIMediaType(schema=Schema()) for kind in (NDJSON, "application/x-tar", "application/gzip")},
    description="Lines of one conversation, or a tar, plain or gzip",
    required=True,
)


OF_A_TRANSCRIPT = (
    header("Idempotency-Key", "A name for this batch: the same again changes nothing", pattern=KEY_PATTERN),
    header("X-Source", "Who keeps this conversation: one of both", enum=["sdk", "file"]),
    header("X-Session-Id", "The session that it belongs to", pattern=ID_PATTERN),
    header(
        "X-Source-Offset",
        "Where in its source the first line stands; 0 begins a new generation",
        pattern="^[0-9]{1,18}$",
    ),
)


OF_TRANSCRIPT_LINES = {
    "X-Lines": "How many lines there are",
    "X-Source-Bytes": "How many bytes of its source have been taken",
    "X-Source-Digest": "SHA-256 of these, where it is known",
    "X-Kept-Digest": "SHA-256 of the lines",
    "X-Generation": "Rises when the source was replaced",
}


SUMMARY = RequestBody(
    content={JSON: OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT))}, description="Any object", required=True
)
OF_A_SUMMARY = (header("If-Match", "Versions of the summary, as ETag has them; `*` is any"),)


CHECKPOINT_LINES = RequestBody(
    content={NDJSON: OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))},
    description="Lines of JSON, each with a `value`, a `checkpoint` or a `write`; bytes are base64",
    required=True,
)
OF_A_THREAD = (header("X-Session-Id", "The session that it belongs to", pattern=ID_PATTERN),)
