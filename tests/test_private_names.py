"""A tripwire: every private or undocumented name of a library that is used here, so that an upgrade fails here first.

Who uses another one adds it; who needs one no more takes it away.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import uvicorn
import uvicorn.protocols.http.httptools_impl as http
import uvicorn.protocols.utils
import uvicorn.protocols.websockets.websockets_sansio_impl as websockets_impl
import websockets.http11
import websockets.server

# --------------------------------------------------------- what stands in a class or module, and where it is used

NAMES: dict[Any, str] = {
    # sessionstore/web/server.py: Http
    http: "STATUS_LINE HttpToolsProtocol RequestResponseCycle",
    http.HttpToolsProtocol: (
        "connection_made connection_lost data_received shutdown "
        "on_message_begin on_headers_complete on_message_complete handle_websocket_upgrade send_400_response "
        "loop transport client url headers cycle timeout_keep_alive_task"
    ),
    http.RequestResponseCycle: "scope keep_alive more_body response_started response_complete",
    # sessionstore/web/server.py: WebSockets, Handshake; live.py catches ClientDisconnected as an OSError
    uvicorn.protocols.utils: "ClientDisconnected",
    websockets_impl.WebSocketsSansIOProtocol: (
        "connection_lost data_received handle_connect handle_parser_exception handle_ping shutdown "
        "conn logger loop transport queue client writable read_paused "
        "close_sent close_timer disconnected handshake_initiated scope"
    ),
    websockets.server.ServerProtocol: "reject handshake_exc close_sent data_to_send send_close",
    websockets.http11.Response: "status_code headers body",
    # sessionstore/web/server.py: Server
    uvicorn.Server: "on_tick handle_exit should_exit started",
}
SAID = {
    # sessionstore/web/server.py drops these lines of the log
    http: ("Invalid HTTP request received.", "Unsupported upgrade request."),
    websockets_impl: (
        "Invalid UTF-8 sequence received from client.",
        "ASGI callable returned without completing handshake.",
    ),
}


def source_of(holder: Any) -> str:
    kinds = [kind for kind in holder.__mro__ if kind is not object] if isinstance(holder, type) else [holder]
    return "".join(map(inspect.getsource, kinds))


@pytest.mark.parametrize(
    ("holder", "name"),
    [(holder, name) for holder, names in NAMES.items() for name in names.split()],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_private_name_is_still_there(holder: Any, name: str) -> None:
    is_attribute = re.search(rf"\bself\.{name}\b\s*(:[^=\n]+)?=", source_of(holder)) is not None
    assert hasattr(holder, name) or name in inspect.get_annotations(holder) or is_attribute


@pytest.mark.parametrize(("module", "text"), [(module, text) for module, texts in SAID.items() for text in texts])
def test_a_line_of_the_log_is_still_worded_so(module: Any, text: str) -> None:
    assert f'"{text}"' in inspect.getsource(module)


def test_a_client_that_went_away_is_an_error_of_the_system() -> None:
    assert issubclass(uvicorn.protocols.utils.ClientDisconnected, OSError)


def test_a_name_that_is_gone_would_be_missed() -> None:
    with pytest.raises(AssertionError):
        test_a_private_name_is_still_there(http.HttpToolsProtocol, "gone")
