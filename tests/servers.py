"""Real servers for tests: a process in a group of its own, awaited by its health page, gone with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import BaseServer
from threading import Thread

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
_GRACE_S = 20


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """A server of Python's own, in a thread."""
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def self_signed(folder: Path) -> Path:
    """A certificate of `HOST` that only who is given the file trusts, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-signed")])
    host, now = x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), datetime.now(UTC)
    wanted = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    certificate = wanted.add_extension(host, critical=False).sign(key, hashes.SHA256())
    file = folder / "self-signed.pem"
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(certificate.public_bytes(Encoding.PEM) + key_pem)
    return file


def speak_tls(server: BaseServer, certificate: Path) -> None:
    """Before it serves. `certificate`: with its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)


UNUSABLE_ANSWERS = {
    "Exceeded maximum allowed redirects.": (302, {"Location": "?again"}),
    "redirected to 'ftp://h/a.png', which is no address": (302, {"Location": "ftp://team:s3cret@h/a.png"}),
    "redirected to 'http://a..b/a.png', which is no address": (303, {"Location": "http://a..b/a.png"}),
    "redirected to 'http://h:80a/', which is no address": (303, {"Location": "http://h:80a/"}),
    "redirected to '//[h/', which is no address": (303, {"Location": "//[h/"}),
    "Error -3 while decompressing data: incorrect header check": (200, {"Content-Encoding": "gzip"}),
}
"""What httpx is told to say of an answer -> its status and headers."""


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers = self.server.answer
        self.send_response(status)
        for name, value in ({"Content-Length": "5"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"bytes")

    def log_message(self, *arguments: object) -> None:
        """Not on the terminal."""


@contextmanager
def answering(status: int, headers: Mapping[str, str]) -> Iterator[ThreadingHTTPServer]:
    """A server that answers so whatever is asked; its `url`, and the paths that were `asked` of it."""
    server = ThreadingHTTPServer((HOST, 0), _Answer)
    server.answer, server.asked, server.url = (status, headers), [], f"http://{HOST}:{server.server_port}"
    with serving(server):
        yield server


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to the server at `server.behind`, without `server.root`; knows nothing outside that."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.path.startswith(f"{self.server.root}/"):
            self.answer(404, b"")
            return
        headers = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
        url = self.server.behind + self.path.removeprefix(self.server.root)
        answer = httpx.request(self.command, url, content=body, headers=headers, timeout=60)
        self.answer(answer.status_code, answer.content, {"Content-Type": answer.headers.get("Content-Type", "")})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def answer(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Not on the terminal."""


@contextmanager
def proxied(url: str, *, root: str = "", handler: type[Proxy] = Proxy) -> Iterator[str]:
    """The server at `url` behind another; its URL there, which ends in `root`."""
    server = ThreadingHTTPServer((HOST, 0), handler)
    server.behind, server.root = url, root
    with serving(server):
        yield f"http://{HOST}:{server.server_port}{root}"


@contextmanager
def running(
    command: Sequence[str], *, health_url: str, log: Path, environment: Mapping[str, str], deadline_s: float = 500
) -> Iterator[subprocess.Popen]:
    """Start a server, wait until `health_url` answers 200, and end its whole process group afterwards.

    Raises:
        RuntimeError: it died, or did not answer within `deadline_s`; the message ends with its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=dict(environment), start_new_session=True
        )
    try:
        _await_health(process, health_url, log, deadline_s)
        yield process
    finally:
        _end(process)


def _await_health(process: subprocess.Popen, url: str, log: Path, deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not _is_up(url):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} did not answer within {deadline_s} s:\n{_tail(log)}")
        time.sleep(0.2)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _end(process: subprocess.Popen) -> None:
    """Ask the group to go; what is left of it after a while is killed."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
