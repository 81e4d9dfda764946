"""Which TCP ports a deployment has open, and what guards each; read from /proc.

Ray listens on all interfaces whatever address it is told, so an operator must
be able to see it.  What Troupe opens itself is on loopback only.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from runtime.cluster.processes import marked

METRICS = ("monitor.py", "dashboard.py", "ray::DashboardAgent")
"""Processes of Ray of which some port serves metrics to whoever asks."""
PROBE_S = 0.5
_LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp (include/net/tcp_states.h)."""


@dataclass(frozen=True)
class Listener:
    """One listening TCP socket."""

    address: str
    port: int
    process: str
    guard: str

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.address).is_loopback


def listeners(data: Path, http_port: int) -> list[Listener]:
    """The deployment's listening sockets, by port."""
    sockets = _listening()
    found = []
    for pid in marked(data):
        title = _title(pid)
        for inode in _inodes(pid):
            if inode in sockets:
                address, port = sockets[inode]
                found.append(Listener(address, port, title, _guard(title, port, http_port)))
    return sorted(set(found), key=lambda one: (one.port, one.address, one.process))


def _guard(title: str, port: int, http_port: int) -> str:
    if port == http_port:
        return "API keys"
    if "scripted" in title:
        return "none: a script"
    if title in METRICS and _serves_metrics(port):
        return "none: metrics"
    return "Ray's token"


def _serves_metrics(port: int) -> bool:
    """Whether the port answers for metrics without a token; asked, because Ray's ports move."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PROBE_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _listening() -> dict[str, tuple[str, int]]:
    """Inode -> (address, port) of every listening TCP socket of the machine."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                host, _, port = fields[1].partition(":")
                found[fields[9]] = (_address(host), int(port, 16))
    return found


def _address(text: str) -> str:
    """The kernel writes addresses as 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _inodes(pid: int) -> set[str]:
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def _title(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    text = [word.decode(errors="replace") for word in words if word]
    if not text:
        return "?"
    if Path(text[0]).name.startswith("python") and len(text) > 2:
        script = text[2] if text[1] in ("-m", "-u") else text[1]
        return Path(script).name
    return Path(text[0].split(" ")[0]).name
