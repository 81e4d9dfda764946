"""The inner end of a setup's way out: a program that runs in the sandbox around a command.

It listens on the sandbox's own loopback, where package managers look for a
proxy, and carries every connection to the socket of the process outside, which
alone decides what is reached.  It ends with the command, with its exit code.
It imports the standard library only.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading

INSIDE = "/run/relay.py"
SOCKET = "/run/egress"
PORT = 3128
CHUNK_BYTES = 1 << 16
BACKLOG = 64
SIGNALLED = 128


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes until the source has said all."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


def serve(near: socket.socket) -> None:
    """Carry one connection."""
    with near, socket.socket(socket.AF_UNIX) as far, contextlib.suppress(OSError):
        far.connect(SOCKET)
        sending = threading.Thread(target=carry, args=(near, far), daemon=True)
        sending.start()
        carry(far, near)
        near.shutdown(socket.SHUT_RD)
        sending.join()


def listen(door: socket.socket) -> None:
    """Take connections for as long as the program runs."""
    while True:
        near, _ = door.accept()
        threading.Thread(target=serve, args=(near,), daemon=True).start()


def main() -> None:
    door = socket.create_server(("127.0.0.1", PORT), backlog=BACKLOG)
    threading.Thread(target=listen, args=(door,), daemon=True).start()
    code = subprocess.run(sys.argv[1:], check=False).returncode
    sys.exit(code if code >= 0 else SIGNALLED - code)


if __name__ == "__main__":
    main()
