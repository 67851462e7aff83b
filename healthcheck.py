"""Whether the store on this machine takes writes, for an image's HEALTHCHECK: exit code 0 or 1. No token is needed."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys

SECONDS = 4.0


def connection() -> http.client.HTTPConnection:
    port = int(os.environ.get("PORT") or 9000)
    if not os.environ.get("SESSIONS_TLS_CERT"):
        return http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    itself = ssl.create_default_context()  # the certificate is for another name than 127.0.0.1
    itself.check_hostname, itself.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=itself)


def status() -> str:
    """`ok`, or why not."""
    try:
        asked = connection()
        asked.request("GET", "/health")
        return str(json.load(asked.getresponse())["status"])
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    print(found := status())
    sys.exit(found != "ok")
