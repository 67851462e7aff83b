"""How the API refuses: RFC 9457 problem details, with `error` for the older clients."""

from __future__ import annotations

from http import HTTPStatus

import httpx


def assert_problem(answer: httpx.Response, status: int, path: str | None = None) -> None:
    """`answer` refuses with `status`, in the one shape of errors, and names the bad field at `path` if there is one."""
    assert answer.status_code == status, f"{answer.request.method} {answer.request.url}: {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "about:blank"
    assert problem["title"] == HTTPStatus(status).phrase
    assert problem["status"] == status
    assert isinstance(problem["detail"], str) and problem["detail"]
    assert problem["error"] == problem["detail"]
    if path is not None:
        assert [error["path"] for error in problem["errors"]] == [path]
        assert all(isinstance(error["message"], str) for error in problem["errors"])
