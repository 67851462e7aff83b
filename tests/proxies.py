"""Certificates, an appliance that speaks TLS, and real proxies in front of one, set up as docs/ says."""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.appliance import REPOSITORY, Appliance, Server

PATH = f"{os.environ['PATH']}:/usr/sbin"
"""Debian's nginx is in the second."""


class Certificate(NamedTuple):
    """For localhost and the addresses of this machine, made out by itself."""

    file: Path
    key: Path

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))

    @property
    def settings(self) -> dict[str, str]:
        return {"SESSIONS_TLS_CERT": str(self.file), "SESSIONS_TLS_KEY": str(self.key)}


def make_certificate(folder: Path, name: str = "localhost") -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    files = ["-out", str(made.file), "-keyout", str(made.key)]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True, timeout=60)
    return made


def answers(port: int, path: str, trust: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection("localhost", port, timeout=5.0, context=trust)
    try:
        connection.request("GET", path, headers={"authorization": "Bearer nobody"})  # for one that asks people
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class SecureAppliance(Appliance):
    """One that speaks HTTPS."""

    def __init__(self, folder: Path, certificate: Certificate, env: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, {**certificate.settings, **(env or {})})
        self.certificate = certificate

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def _answers(self, path: str) -> bool:
        return answers(self.port, path, self.certificate.trust)


class Proxy(Server):
    """A proxy that serves HTTPS and passes all on to an appliance."""

    program: str

    def __init__(
        self, folder: Path, appliance: Appliance, certificate: Certificate, *, knows_people: bool = False
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.knows_people = knows_people
        self.certificate = certificate
        super().__init__(self.command(), {"PATH": PATH, "HOME": str(folder), "XDG_DATA_HOME": str(folder)})
        self.configure(appliance)

    def command(self) -> list[str]:
        raise NotImplementedError

    def configure(self, appliance: Appliance) -> None:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def _answers(self, path: str) -> bool:
        return answers(self.port, path, self.certificate.trust)


USER, PASSWORD = "alice", "a-password"


def people_in(text: str, *beginnings: str) -> str:
    """The file with these lines, each of which is a comment there."""
    for beginning in beginnings:
        assert f"# {beginning}" in text, beginning
        text = text.replace(f"# {beginning}", beginning)
    return text


def replaced(name: str, replacements: Mapping[str, str]) -> str:
    """A file of docs/ as it is, but for these addresses and files, each of which it must have."""
    text = (REPOSITORY / "docs" / name).read_text()
    for old, new in replacements.items():
        assert old in text, f"docs/{name} has no {old!r}"
        text = text.replace(old, new)
    return text


HASH = "$2b$04$abcdefghijklmnopqrstuurp8gIuTR7jNLYUS2oWqlo53RjDCp7f6"
"""Of the password, by bcrypt at its least cost."""


class Nginx(Proxy):
    program = "nginx"

    def command(self) -> list[str]:
        return ["nginx", "-p", str(self.folder), "-e", "stderr", "-c", str(self.folder / "nginx.conf")]

    def configure(self, appliance: Appliance) -> None:
        passwords = self.folder / "passwords"
        passwords.write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        text = replaced(
            "nginx.conf",
            {
                "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
                "server 127.0.0.1:9000": f"server 127.0.0.1:{appliance.port}",
                "/etc/ssl/sessions.example.com.pem": str(self.certificate.file),
                "/etc/ssl/sessions.example.com.key": str(self.certificate.key),
                "/etc/nginx/session-store.htpasswd": str(passwords),
            },
        )
        if self.knows_people:
            text = people_in(text, "auth_basic  ", "auth_basic_user_file", "proxy_set_header     X-User")
        (self.folder / "store.conf").write_text(text)
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {self.folder}/pid; events {{}}\n"
            f"http {{ access_log off; {temporary} include {self.folder}/store.conf; }}\n"
        )


class Caddy(Proxy):
    program = "caddy"

    def command(self) -> list[str]:
        return ["caddy", "run", "--adapter", "caddyfile", "--config", str(self.folder / "Caddyfile")]

    def configure(self, appliance: Appliance) -> None:
        text = replaced(
            "Caddyfile",
            {
                "sessions.example.com {": f"https://localhost:{self.port} {{\n"
                f"\tbind 127.0.0.1\n\ttls {self.certificate.file} {self.certificate.key}",
                "127.0.0.1:9000": f"127.0.0.1:{appliance.port}",
                "alice HASH": f"alice {HASH}",
            },
        )
        if self.knows_people:
            text = people_in(text, "@people", "basicauth", "\talice", "}", "header_up X-User")
        (self.folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}")


def is_missing(program: str) -> bool:
    """In CI it has to be there."""
    return shutil.which(program, path=PATH) is None and not os.environ.get("CI")
