"""What a browser gets: the dashboard, and the documentation of the API. Nothing comes from another host."""

from __future__ import annotations

import hashlib
import posixpath
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Request, Response, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath

import hook_agent
from sessionstore import ROOT, __version__
from sessionstore.model.problems import Problem
from sessionstore.web.forwarded import prefix_in
from sessionstore.web.gate import FILES

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
    "agent": "/hook_agent.py",
    "nodeAgent": "/hook_agent.mjs",
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


class JsonDocument(Below, JsonRenderPlugin):
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
        JsonDocument(),
    ],
)


POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""What the page may load and do: its own files, and the API."""
KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
FIRST = '<script type="module" src="dashboard/main.js">'
IMPORTS = re.compile(rb"""^(?:import|export) (?:[^"]* from )?"(\.[^"]+)";""", re.MULTILINE)
HEADERS = {"sw.js": {"service-worker-allowed": "../"}}
"""The service worker is for the page above its folder, wherever a proxy has put that."""
AGENTS = {f"/{name}": ROOT / "containers" / name for name in FILES} | {"/hook_agent.py": Path(hook_agent.__file__)}


class StaticFile(NamedTuple):
    body: bytes
    kind: str
    etag: str

    def answer(self, request: Request[Any, Any, Any], **headers: str) -> Response[bytes]:
        own = {"etag": self.etag, "cache-control": "no-cache", "x-content-type-options": "nosniff"} | headers
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(b"", status_code=304, media_type=self.kind, headers=own)
        return Response(self.body, media_type=self.kind, headers=own)


def static(path: Path, kind: str) -> StaticFile:
    return static_bytes(path.read_bytes(), kind)


def static_bytes(body: bytes, kind: str) -> StaticFile:
    return StaticFile(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@cache
def page_files() -> dict[str, StaticFile]:
    """The page, by the empty name, and its files: those that are there, and no others."""
    found = {path: KINDS.get(path.suffix) for path in (ROOT / "dashboard").rglob("*")}
    files = {str(path.relative_to(ROOT / "dashboard")): static(path, kind) for path, kind in found.items() if kind}
    return {"": document(files), **files}


def document(files: dict[str, StaticFile]) -> StaticFile:
    """The page, which asks at once for all that its first module needs: else each is known of after the one before."""
    page = (ROOT / "dashboard.html").read_text()
    links = "".join(
        f'<link rel="modulepreload" href="dashboard/{name}">\n' for name in sorted(imported("main.js", files))
    )
    return static_bytes(page.replace(FIRST, links + FIRST).encode(), "text/html")


def imported(name: str, files: dict[str, StaticFile]) -> set[str]:
    """What a module imports when it is read, and what that does."""
    found: set[str] = set()
    wanted = [name]
    while wanted:
        importer = wanted.pop()
        paths = IMPORTS.findall(files[importer].body)
        names = {
            posixpath.normpath(posixpath.join(posixpath.dirname(importer), path.decode())) for path in paths
        } - found
        found |= names
        wanted += names
    return found


@get("/", include_in_schema=False)
async def home(request: Request[Any, Any, Any]) -> Response[Any]:
    """The dashboard for a browser, what there is for anything else."""
    if "text/html" not in request.headers.get("accept", ""):
        return Response({"service": "session-store", "version": __version__, "endpoints": ENDPOINTS})
    headers = {"content-security-policy": POLICY, "x-frame-options": "DENY", "referrer-policy": "no-referrer"}
    return page_files()[""].answer(request, vary="accept", **headers)


@get("/dashboard/{file:path}", include_in_schema=False)
async def page_file(request: Request[Any, Any, Any], file: FromPath[str]) -> Response[bytes]:
    """The page's modules, its style sheet, and what makes it an app."""
    name = file.removeprefix("/") or "none"
    found = page_files().get(name)
    if found is None:
        raise Problem(404, f"There is no file {file!r}")
    return found.answer(request, **HEADERS.get(name, {}))


@get(list(AGENTS), include_in_schema=False)
async def agent_file(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The agents' own files, as this version has them."""
    path = AGENTS[request.scope["path"].rstrip("/")]
    kind = "text/x-python" if path.suffix == ".py" else KINDS[".js"]
    if not path.is_file():
        raise Problem(404, f"There is no {path.name} here")
    return static(path, kind).answer(request, **{"x-version": __version__})


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
