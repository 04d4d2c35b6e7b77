"""A device behind SSH: commands over a channel, files over SFTP.

The loop that speaks SSH runs in a thread of its own, so that any number of threads may each wait for a device.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import asyncssh

from deploy.builders.process import Finished, failure_of, too_slow
from deploy.devices import SshReach
from deploy.shells.background import wait_for
from deploy.shells.base import REMOVALS
from schemas.errors import DeviceError, DeviceOfflineError, DeviceRefusedError, StorageError
from schemas.storage import atomic_path, temporary_name

_PIECE = 1 << 20
_KEEPALIVE_S, _KEEPALIVES = 15, 4
"""A minute of silence means that the device is gone: a small one that builds an engine may be silent for a while."""

_GRACE_S = 10
"""What a device gets to kill a program that has had its time, before its channel is closed."""

_GOODBYE_S = 5

_TIMED_OUT, _KILLED = 124, 137
"""Exit codes of coreutils' `timeout`: it stopped the program; it had to kill it."""

_GONE = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError, ConnectionError)
_FULL = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)


class SshShell:
    """`deploy.shells.base.Shell` over SSH. Made by `connect`."""

    def __init__(
        self,
        name: str,
        directory: PurePosixPath,
        connection: asyncssh.SSHClientConnection,
        sftp: asyncssh.SFTPClient,
    ) -> None:
        self.name = name
        self.directory = directory
        self._connection = connection
        self._sftp = sftp

    @classmethod
    @contextmanager
    def connect(cls, name: str, reach: SshReach) -> Iterator[SshShell]:
        """An open connection. ~/.ssh/config holds for it (a jump host, say), but the host key is checked in any case.

        Raises:
            DeviceOfflineError: it does not answer in time.
            DeviceRefusedError: it refuses the key, or its host key is not the known one.
            DeviceError: it speaks no SFTP, or refuses its directory.
        """
        connection = wait_for(_connect(name, reach))
        try:
            with _asked(name, reach.directory):
                sftp, directory = wait_for(_open_files(connection, reach.directory))
            yield cls(name, directory, connection, sftp)
        finally:
            wait_for(_close(connection))

    def run(self, command: Sequence[str], *, timeout_s: float) -> Finished:
        with _asked(self.name, command[0]):
            return wait_for(self._run(command, timeout_s))

    def put(self, local: Path, remote: str) -> None:
        with local.open("rb") as file:
            pieces = iter(lambda: file.read(_PIECE), b"")
            self._write(pieces, remote, local.stat().st_size)

    def write(self, content: bytes, remote: str) -> None:
        self._write(iter([content]), remote, len(content))

    def fetch(self, remote: str, local: Path) -> None:
        async def receive(temporary: Path) -> None:
            with temporary.open("wb") as file:
                async for piece in self._pieces(remote):
                    file.write(piece)

        with _asked(self.name, remote), atomic_path(local) as temporary:
            wait_for(receive(temporary))

    def read(self, remote: str) -> bytes | None:
        async def content() -> bytes:
            return b"".join([piece async for piece in self._pieces(remote)])

        with _asked(self.name, remote):
            try:
                return wait_for(content())
            except asyncssh.SFTPNoSuchFile:
                return None

    def sha256(self, remote: str) -> str | None:
        """The bytes travel back and are hashed here, so the device needs no program for it."""

        async def digest() -> str:
            hashed = hashlib.sha256()
            async for piece in self._pieces(remote):
                hashed.update(piece)
            return hashed.hexdigest()

        with _asked(self.name, remote):
            try:
                return wait_for(digest())
            except asyncssh.SFTPNoSuchFile:
                return None

    def remove(self, remote: str) -> None:
        with _asked(self.name, remote):
            wait_for(self._remove(self._path(remote)))

    def list(self, remote: str = "") -> list[str]:
        with _asked(self.name, remote):
            try:
                names = wait_for(self._sftp.listdir(self._path(remote)))
            except asyncssh.SFTPNoSuchFile:
                return []
        return sorted({str(name) for name in names} - {".", ".."})

    def _path(self, remote: str) -> str:
        return str(self.directory / remote)

    async def _run(self, command: Sequence[str], timeout_s: float) -> Finished:
        """`timeout` on the device ends the program there even if the connection is gone by then."""
        limited = ["timeout", "-k", "5", f"{timeout_s:g}", *command]
        line = f"cd {shlex.quote(str(self.directory))} && exec {shlex.join(limited)}"
        started = time.perf_counter()
        try:
            done = await self._connection.run(
                line,
                stdin=asyncssh.DEVNULL,
                stderr=asyncssh.STDOUT,
                errors="replace",
                timeout=timeout_s + _GRACE_S,
            )
        except asyncssh.TimeoutError as error:
            return Finished(str(error.stdout or ""), too_slow(timeout_s), time.perf_counter() - started)
        seconds, output = time.perf_counter() - started, str(done.stdout or "")
        if done.returncode is None:
            raise ConnectionResetError(f"the connection was lost {seconds:.0f} s after '{command[0]}' had started")
        if done.returncode == _TIMED_OUT or (done.returncode == _KILLED and seconds >= timeout_s):
            return Finished(output, too_slow(timeout_s), seconds)
        status = 128 - done.returncode if 128 < done.returncode < 193 else done.returncode
        return Finished(output, failure_of(status, output), seconds)

    def _write(self, pieces: Iterator[bytes], remote: str, size: int) -> None:
        path = PurePosixPath(self._path(remote))
        with _asked(self.name, str(path)):
            wait_for(self._replace(pieces, path, size))

    async def _replace(self, pieces: Iterator[bytes], path: PurePosixPath, size: int) -> None:
        """Each has a temporary name of its own: two may write one file at once. What a device that went away keeps
        begins with a dot; whoever writes into that folder an hour later removes it (`deploy.device.scratch`)."""
        temporary = str(path.with_name(temporary_name(path.name)))
        await self._sftp.makedirs(str(path.parent), exist_ok=True)
        try:
            async with self._sftp.open(temporary, "wb") as file:
                for piece in pieces:
                    await file.write(piece)
                await _fsync(file)
            await self._sftp.posix_rename(temporary, str(path))
        except asyncssh.SFTPError as error:
            full = await self._is_full(error, str(path.parent), size)
            if not isinstance(error, _GONE):
                await self._remove(temporary)
            if full:
                raise asyncssh.SFTPNoSpaceOnFilesystem(error.reason) from error
            raise

    async def _is_full(self, error: asyncssh.SFTPError, directory: str, size: int) -> bool:
        """SFTP 3, which OpenSSH speaks, has no word for a full disk: it says `Failure`, so what is free is asked."""
        if not isinstance(error, asyncssh.SFTPFailure):
            return isinstance(error, _FULL)
        try:
            free = await self._sftp.statvfs(directory)
        except asyncssh.SFTPOpUnsupported:
            return False
        return free.bavail * free.frsize < max(size, 1)

    async def _pieces(self, remote: str) -> AsyncIterator[bytes]:
        async with self._sftp.open(self._path(remote), "rb") as file:
            while piece := await file.read(_PIECE):
                yield piece

    async def _remove(self, path: str) -> None:
        if await self._sftp.isdir(path) and not await self._sftp.islink(path):
            await self._remove_tree(path)
        elif await self._sftp.lexists(path):
            with suppress(asyncssh.SFTPNoSuchFile):
                await self._sftp.remove(path)

    async def _remove_tree(self, path: str, tries: int = REMOVALS) -> None:
        try:
            await self._sftp.rmtree(path, onerror=_unless_gone)
        except asyncssh.SFTPFailure:  # not empty: a list made while somebody else removes may lack files
            if tries == 1:
                raise
            await self._remove_tree(path, tries - 1)


def _unless_gone(_function: object, _path: bytes, error: tuple[object, BaseException, object]) -> None:
    """Somebody else may remove the same folder at this moment."""
    if not isinstance(error[1], asyncssh.SFTPNoSuchFile):
        raise error[1]


async def _connect(name: str, reach: SshReach) -> asyncssh.SSHClientConnection:
    known_hosts = Path(reach.known_hosts or "~/.ssh/known_hosts").expanduser()
    host = f"{reach.host}:{reach.port}"
    if not known_hosts.is_file():
        raise DeviceRefusedError(
            f"device '{name}' ({host}): there is no file {known_hosts} to check its host key by; "
            f"`ssh-keyscan -p {reach.port} {reach.host}` prints its keys: compare them with the device's own"
        )
    try:
        return await asyncssh.connect(
            reach.host,
            reach.port,
            username=reach.user if reach.user is not None else (),
            **_keys(name, reach),
            known_hosts=str(known_hosts),
            preferred_auth="publickey",
            connect_timeout=reach.connect_timeout_s,
            login_timeout=reach.connect_timeout_s,
            keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=_KEEPALIVES,
        )
    except asyncssh.PermissionDenied as error:
        raise DeviceRefusedError(
            f"device '{name}' ({host}) refuses {_user(reach)} with {_key(reach)}; add the public key to "
            "~/.ssh/authorized_keys there, or name another `user` or `key_file` in the devices file"
        ) from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise DeviceRefusedError(
            f"device '{name}' ({host}) shows a host key that {known_hosts} does not hold for it: it is new, was "
            "installed anew, or is another machine. See which, and put its key into that file"
        ) from error
    except (asyncssh.ConnectionLost, OSError) as error:  # a timeout is an OSError
        why = str(error) or f"no answer in {reach.connect_timeout_s:g} s"
        raise DeviceOfflineError(f"device '{name}' ({host}) does not answer: {why}") from error
    except asyncssh.Error as error:
        raise DeviceError(f"device '{name}' ({host}): SSH fails: {error.reason}") from error


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    """Say goodbye; to a device that is gone, for no longer than it takes to be sure."""
    connection.close()
    try:
        await asyncio.wait_for(connection.wait_closed(), _GOODBYE_S)
    except TimeoutError:
        connection.abort()


def _keys(name: str, reach: SshReach) -> dict[str, object]:
    """With a key file, that key alone; else those of the agent and of ~/.ssh."""
    if reach.key_file is None:
        return {}
    path = Path(reach.key_file).expanduser()
    try:
        return {"client_keys": [asyncssh.read_private_key(path)], "agent_path": None}
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise DeviceRefusedError(
            f"device '{name}': its key file {path} can't be used: {why}; name a private key in OpenSSH's format "
            "without a passphrase, or none, and hold the key in the SSH agent"
        ) from error


def _user(reach: SshReach) -> str:
    return f"user '{reach.user}'" if reach.user else "this user's name"


def _key(reach: SshReach) -> str:
    return f"key {reach.key_file}" if reach.key_file else "the keys of the SSH agent and of ~/.ssh"


async def _open_files(
    connection: asyncssh.SSHClientConnection, directory: str
) -> tuple[asyncssh.SFTPClient, PurePosixPath]:
    """SFTP, and the directory's absolute name, made if it is not there; a relative one is below the user's home."""
    sftp = await connection.start_sftp_client()
    home = directory.removeprefix("~/")
    await sftp.makedirs(home, exist_ok=True)
    return sftp, PurePosixPath(str(await sftp.realpath(home)))


async def _fsync(file: asyncssh.SFTPClientFile) -> None:
    try:
        await file.fsync()
    except asyncssh.SFTPOpUnsupported:
        return  # not an OpenSSH server: closing the file is all that can be asked of it


@contextmanager
def _asked(name: str, what: str) -> Iterator[None]:
    """Errors of SSH in this project's words."""
    try:
        yield
    except _GONE as error:
        raise DeviceOfflineError(f"device '{name}' went away at {what}: {error}") from error
    except _FULL as error:
        raise StorageError(
            f"device '{name}': its disk is full: {what} can't be written, and nothing of it is left; "
            "free space on the device and run the same command again"
        ) from error
    except asyncssh.ChannelOpenError as error:
        raise DeviceOfflineError(f"device '{name}' takes no more commands: {error.reason}") from error
    except asyncssh.SFTPPermissionDenied as error:
        raise DeviceError(
            f"device '{name}': {what}: permission denied; give its SSH user the directory, or name another"
        ) from error
    except asyncssh.SFTPError as error:
        raise DeviceError(f"device '{name}': {what}: {error.reason}") from error
