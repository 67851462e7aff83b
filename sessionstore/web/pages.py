"""What a browser gets: the dashboard, and the documentation of the API. Nothing comes from another host."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath

from sessionstore import ROOT, __version__
from sessionstore.model.problems import Problem
from sessionstore.web.forwarded import prefix_in

DASHBOARD = ROOT / "dashboard.html"
ENDPOINTS = {
    "health": "/health",
    "ready": "/ready",
    "metrics": "/metrics",
    "sessions": "/api/sessions",
    "actions": "/api/actions/{sessionId}",
    "responses": "/api/actions/{sessionId}/responses",
    "state": "/api/state/{sessionId}",
    "events": "/api/events",
    "stream": "/api/events/stream",
    "recent": "/api/query/recent",
    "active": "/api/query/active",
    "stats": "/api/query/stats",
    "search": "/api/query/search",
    "hooks": "/api/hooks/claude-code",
    "websocket": "/ws",
    "datasette": "/datasette/",
    "schema": "/schema",
}
"""Where a program finds what; the documentation has the rest."""
SWAGGER = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
}


class Below:
    """A rendering of the API's description, for whoever reaches it below the path of a proxy."""

    def render_json(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        rendered: bytes = super().render_json(  # type: ignore[misc]
            request, openapi_schema | {"servers": [{"url": prefix_in(request.scope) or "/"}]}
        )
        return rendered


class Json(Below, JsonRenderPlugin):
    pass


class Swagger(Below, SwaggerRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        page = super().render(request, openapi_schema)
        return page.replace(b'="/schema/', f'="{prefix_in(request.scope)}/schema/'.encode())


OPENAPI = OpenAPIConfig(
    title="Session store",
    version=__version__,
    description="Takes in everything that agents do, shows it live, and gives it back.",
    path="/schema",
    use_handler_docstrings=True,
    components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
    security=[{}, {"token": []}],
    render_plugins=[
        Swagger(
            path="/",
            js_url="/schema/assets/swagger-ui-bundle.js",
            css_url="/schema/assets/swagger-ui.css",
            standalone_preset_js_url="/schema/assets/swagger-ui-standalone-preset.js",
            favicon='<link rel="icon" href="data:,">',
        ),
        Json(),
    ],
)


@get("/", include_in_schema=False)
async def home(request: Request[Any, Any, Any]) -> Response[Any]:
    """The dashboard for a browser, what there is for anything else."""
    if "text/html" in request.headers.get("accept", ""):
        page, policy = dashboard()
        return Response(page, media_type="text/html; charset=utf-8", headers=page_headers(policy))
    return Response({"service": "session-store", "version": __version__, "endpoints": ENDPOINTS})


@cache
def dashboard() -> tuple[str, str]:
    """The page, and the Content-Security-Policy that lets its own script and style run and no other."""
    page = DASHBOARD.read_text()
    return page, (
        f"default-src 'none'; script-src {hashes(page, 'script')}; style-src {hashes(page, 'style')};"
        " connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def hashes(page: str, element: str) -> str:
    parts = re.findall(f"<{element}(?: [^>]*)?>(.*?)</{element}>", page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts)


def page_headers(policy: str) -> dict[str, str]:
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


@get("/schema/assets/{name:str}", include_in_schema=False)
async def documentation_asset(name: FromPath[str]) -> Response[bytes]:
    """The files of Swagger UI, out of the package that brings them."""
    if name not in SWAGGER:
        raise Problem(404, f"There is no asset {name!r}")
    headers = {"cache-control": "max-age=86400", "x-content-type-options": "nosniff"}
    return Response(swagger_file(name), media_type=SWAGGER[name], headers=headers)


@cache
def swagger_file(name: str) -> bytes:
    spec = find_spec("swagger_ui")  # the folder of the package alone: its code is not run
    assert spec is not None and spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]) / "static" / name).read_bytes()


ROUTES = (home, documentation_asset)
