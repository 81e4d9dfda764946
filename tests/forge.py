"""A git forge of true parts: git's own http-backend behind TLS, and git over ssh.

The certificate and the keys are made for the test; everything a repository's
host could do wrong is a switch here.
"""

from __future__ import annotations

import base64
import getpass
import http.server
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.git import ENVIRONMENT
from actors.mirror import RepositorySource
from runtime.cluster.port import free_port
from tests.workshop import GIT_ENVIRONMENT, processes_with

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
READY_WITHIN_S = 30.0


@dataclass
class Forge:
    """Serves the repositories below `root` at `https://127.0.0.1:<port>/<name>`."""

    root: Path
    certificate: Path
    port: int = 0
    token: str | None = None
    """Asked for, with the user `x`, if set."""
    redirect: str | None = None
    """Where every request is sent on to, if set."""
    cut_after_bytes: int | None = None
    """Of the next pack: then the connection ends."""
    held: threading.Event | None = None
    """No request is answered until it is set."""
    asked: list[str] = field(default_factory=list)
    """Every request so far."""
    seen_with_token: list[int] = field(default_factory=list)
    """Processes that showed the token in their command line during a request."""

    def url(self, name: str = "shop") -> str:
        return f"https://127.0.0.1:{self.port}/{name}"

    def source(self, name: str = "shop", token: str | None = None) -> RepositorySource:
        """As an operator would configure it: the certificate is known, the token if given."""
        config = {"http.sslCAInfo": str(self.certificate)}
        if token is not None:
            basic = base64.b64encode(f"x:{token}".encode()).decode()
            config["http.extraHeader"] = f"Authorization: Basic {basic}"
        return RepositorySource(self.url(name), config=config)


@contextmanager
def forge(root: Path, **fields: Any) -> Iterator[Forge]:
    """A running one."""
    certificate, key = root / "forge.pem", root / "forge.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=forge", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    made = Forge(root, certificate, **fields)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = type("Handler", (_Handler,), {"forge": made})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        made.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield made
        finally:
            if made.held is not None:
                made.held.set()
            server.shutdown()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None: ...  # a client that went away is no news


class _Handler(http.server.BaseHTTPRequestHandler):
    forge: Forge
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def _serve(self, body: bytes) -> None:
        forge = self.forge
        forge.asked.append(f"{self.command} {self.path}")
        if forge.token is not None:
            forge.seen_with_token += processes_with(forge.token)
            encoded = base64.b64encode(f"x:{forge.token}".encode()).decode()
            forge.seen_with_token += processes_with(encoded)
            if self.headers.get("Authorization") != f"Basic {encoded}":
                return self._say(401, {"WWW-Authenticate": 'Basic realm="forge"'})
        if forge.held is not None:
            forge.held.wait()
        if forge.redirect is not None:
            return self._say(302, {"Location": forge.redirect + self.path})
        self._answer(_backend(forge.root, self, body))

    def _answer(self, output: bytes) -> None:
        head, _, content = output.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split(" ")[0])
        cut = self.forge.cut_after_bytes
        if cut is not None and self.path.endswith("upload-pack") and len(content) > cut:
            self.forge.cut_after_bytes = None
            self._say(status, headers, content, sent=cut)
            self.close_connection = True
            return
        self._say(status, headers, content)

    def _say(
        self, status: int, headers: dict[str, str], content: bytes = b"", sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


def _backend(root: Path, request: http.server.BaseHTTPRequestHandler, body: bytes) -> bytes:
    """What git's own CGI program answers."""
    path, _, query = request.path.partition("?")
    given = request.headers
    return subprocess.run(
        ["git", "http-backend"],
        env={
            **GIT_ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": given.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": given.get("Content-Encoding", ""),
            "GIT_PROTOCOL": given.get("Git-Protocol", ""),
        },
        input=body, stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip


# ssh


@dataclass(frozen=True)
class SshDoor:
    """A true sshd of this user's own, on a port of this machine."""

    folder: Path
    port: int

    def source(self, place: Path, key: str = "user", known: bool = True) -> RepositorySource:
        """With our own ssh command, to which only key and known hosts are added."""
        hosts = self.folder / ("known_hosts" if known else "nothing_known")
        options = (
            f"-F /dev/null -i {shlex.quote(str(self.folder / key))} -oIdentitiesOnly=yes"
            f" -oUserKnownHostsFile={shlex.quote(str(hosts))} -oGlobalKnownHostsFile=/dev/null"
        )
        command = f"{ENVIRONMENT['GIT_SSH_COMMAND']} {options}"
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{place}"
        return RepositorySource(url, env={"GIT_SSH_COMMAND": command})


@contextmanager
def ssh_door(folder: Path) -> Iterator[SshDoor]:
    """A running one; it lets in who has the key `user`."""
    assert SSHD is not None
    folder.mkdir()
    for name in ("host", "user", "stranger"):
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(made, check=True)
    port = free_port()
    (folder / "authorized_keys").write_bytes((folder / "user.pub").read_bytes())
    host = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized_keys", "PidFile": "none", "UsePAM": "no",
        "StrictModes": "no", "PasswordAuthentication": "no", "PermitRootLogin": "yes",
        "KbdInteractiveAuthentication": "no",
    }  # fmt: skip
    text = "".join(f"{name} {value}\n" for name, value in settings.items())
    (folder / "sshd_config").write_text(text)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # its own condition for running at all
    server = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")],
        stderr=(folder / "sshd.log").open("wb"),
    )
    try:
        _wait_for(port, server)
        yield SshDoor(folder, port)
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            assert time.monotonic() < until and server.poll() is None, "sshd is not up"
            time.sleep(0.02)
