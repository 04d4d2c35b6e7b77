"""A real SSH server on loopback that stands for a device: it runs commands and takes files into a directory.

What can go wrong with a device is switched on by setting attributes of `DeviceServer`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import asyncssh

from deploy.devices import Device, Ring, SshReach

HOST, USER = "127.0.0.1", "device"


class DeviceServer:
    """The device: its `directory`, and its faults.

    Attributes:
        refuse_key: it no longer knows the client's key.
        capacity: bytes that its disk holds, in all files below `directory`; None for no bound. A full disk is told as
            OpenSSH tells it: `Failure`, with nothing free.
        corrupt: its disk keeps other bytes than it is given.
        vanish_after_bytes: it goes away when it has received as many bytes of files, from now on.
        vanish_at: it goes away in the middle of a command that has this text in it.
        commands: command lines it was given.
    """

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "engines"
        self.refuse_key = self.corrupt = False
        self.capacity: int | None = None
        self.vanish_after_bytes: int | None = None
        self.vanish_at: str | None = None
        self.commands: list[str] = []
        self._folder = folder
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._client_key = asyncssh.generate_private_key("ssh-ed25519")
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._children: set[asyncio.subprocess.Process] = set()
        self._listener: asyncssh.SSHAcceptor | None = None
        self._port = 0
        self.come_back()
        folder.mkdir(parents=True, exist_ok=True)
        self._client_key.write_private_key(folder / "key")
        self.write_known_hosts(self._host_key)

    def write_known_hosts(self, key: asyncssh.SSHKey) -> None:
        """What clients take for the device's host key."""
        text = key.export_public_key().decode().rsplit(" ", 0)[0]
        (self._folder / "known_hosts").write_text(f"[{HOST}]:{self._port} {text}")

    def device(
        self, name: str = "nano-1", target: str = "jetson-nano", ring: Ring = "canary", **reach: Any
    ) -> Device:
        """The device as a fleet's file describes it; `reach` overrides parts of how it is reached."""
        how = {
            "host": HOST,
            "port": self._port,
            "user": USER,
            "directory": str(self.directory),
            "key_file": str(self._folder / "key"),
            "known_hosts": str(self._folder / "known_hosts"),
        }
        return Device(name=name, target=target, ring=ring, reach=SshReach(kind="ssh", **(how | reach)))

    def vanish(self) -> None:
        """Go away: running commands end, connections break off without a word, and nobody listens."""
        _soon(self._vanish())

    def come_back(self) -> None:
        """Listen, again on the same port, with the faults that make it vanish off."""
        self.vanish_after_bytes = self.vanish_at = None
        _soon(self._listen())

    async def _listen(self) -> None:
        self._listener = await asyncssh.listen(
            HOST,
            self._port,
            server_factory=lambda: _Authority(self),
            server_host_keys=[self._host_key],
            process_factory=self._execute,
            sftp_factory=lambda channel: _Files(channel, self),
            encoding=None,
            reuse_address=True,
        )
        self._port = self._listener.get_port()

    async def _vanish(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.abort()
        for child in self._children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    async def _execute(self, process: asyncssh.SSHServerProcess) -> None:
        self.commands.append(str(process.command))
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            str(process.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._children.add(child)
        if self.vanish_at is not None and self.vanish_at in str(process.command):
            await self._vanish()
        output, errors = await child.communicate()
        self._children.discard(child)
        with suppress(BrokenPipeError):  # the client is gone
            process.stdout.write(output)
            process.stderr.write(errors)
            process.exit(child.returncode if child.returncode >= 0 else 128 - child.returncode)

    def _received(self, size: int) -> None:
        if self.vanish_after_bytes is not None:
            self.vanish_after_bytes -= size
            if self.vanish_after_bytes < 0:
                raise asyncssh.SFTPConnectionLost("power cut")

    def free(self) -> int:
        """Bytes that are free on its disk."""
        used = sum(path.stat().st_size for path in self.directory.rglob("*") if path.is_file())
        return 1 << 40 if self.capacity is None else max(0, self.capacity - used)


class _Authority(asyncssh.SSHServer):
    """Who may come in: one user with one key."""

    def __init__(self, server: DeviceServer) -> None:
        self._server = server

    def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
        self._connection = connection
        self._server._connections.add(connection)

    def connection_lost(self, error: Exception | None) -> None:
        self._server._connections.discard(self._connection)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        known = key.public_data == self._server._client_key.public_data
        return known and username == USER and not self._server.refuse_key


class _Files(asyncssh.SFTPServer):
    """The device's disk."""

    def __init__(self, channel: asyncssh.SSHServerChannel, server: DeviceServer) -> None:
        super().__init__(channel)
        self._server = server

    async def write(self, file: Any, offset: int, data: bytes) -> int:
        try:
            self._server._received(len(data))
        except asyncssh.SFTPConnectionLost:
            await self._server._vanish()
            raise
        if len(data) > self._server.free():
            raise asyncssh.SFTPFailure("Failure")
        return super().write(file, offset, data[::-1] if self._server.corrupt else data)

    def statvfs(self, path: bytes) -> Any:
        free = self._server.free()
        numbers = dict.fromkeys(("bsize", "frsize"), 1) | dict.fromkeys(("blocks", "bfree", "bavail"), free)
        return asyncssh.SFTPVFSAttrs(**numbers, files=0, ffree=0, favail=0, fsid=0, flags=0, namemax=255)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One loop for all servers, apart from the clients' own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="device servers", daemon=True).start()
    return loop


def _soon(work: Any) -> None:
    asyncio.run_coroutine_threadsafe(work, _loop()).result()


@contextmanager
def device_server(folder: Path) -> Iterator[DeviceServer]:
    """A device with its directory, its client's key and its known host below `folder`."""
    server = DeviceServer(folder)
    try:
        yield server
    finally:
        server.vanish()
