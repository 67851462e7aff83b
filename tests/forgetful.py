"""A store that acknowledges what it only remembers: the control for the search for lost writes."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

logs: defaultdict[str, list[dict[str, object]]] = defaultdict(list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(logs[urlsplit(self.path).path])

    def do_POST(self) -> None:
        action = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        log = logs[self.path]
        log.append({**action, "seq": len(log) + 1})
        self._answer({"success": True, "seq": len(log)})

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def _answer(self, body: object) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
