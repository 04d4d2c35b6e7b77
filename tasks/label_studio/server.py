"""How a Label Studio for one machine is started: for trying the workflow, and for the tests.

A team's own server is set up by the team. This one keeps everything in one folder, listens on the loopback
interface, calls nobody, and knows one user.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import InputError, SourceRefusedError, SourceUnreachableError

ENVIRONMENT = Path(".venv-label-studio")
"""Where `make` puts Label Studio: its requirements and this project's can't share an environment."""

USER = "labeller@example.test"
HOST = "127.0.0.1"
HEALTH_PATH = "/health/"

_BANNED_SUBNETS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "fc00::/7")
"""Private networks, where its webhooks must not go."""


@dataclass(frozen=True)
class LabelStudioServer:
    """A server to be started.

    Attributes:
        data: folder for its database and uploads.
        port: on the loopback interface.
        token: the user's legacy token, 40 hexadecimal digits; also the password for the browser. Both count only
            when `data` is new.
        environment: virtual environment that holds Label Studio.
    """

    data: Path
    port: int
    token: str = field(repr=False)
    environment: Path = ENVIRONMENT

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def files(self) -> Path:
        """Folders below this one can be a project's image storage."""
        return self.data / "files"

    def command(self) -> list[str]:
        """Raises `SourceUnreachableError` if Label Studio is not installed."""
        program = self.environment.absolute() / "bin" / "label-studio"
        if not program.is_file():
            raise SourceUnreachableError(
                f"{program} is not there; install Label Studio with: make {ENVIRONMENT}/.installed"
            )
        return [str(program), "start", "--no-browser", "--internal-host", HOST, "--port", str(self.port)]

    def variables(self) -> dict[str, str]:
        """The environment variables it needs, on top of this process's own without other Label Studio settings."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LABEL_STUDIO_", "DJANGO_", "POSTGRE_"))
        }
        return inherited | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data.absolute()),
            "DJANGO_DB": "sqlite",
            "LABEL_STUDIO_USERNAME": USER,
            "LABEL_STUDIO_PASSWORD": self.token,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.files.absolute()),
            "USE_DEFAULT_BANNED_SUBNETS": "false",  # its webhooks go to this machine too, and to no other near it
            "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(_BANNED_SUBNETS),
        }

    def check(self) -> None:
        """See that it can start.

        Raises:
            SourceRefusedError: the token is not of the form Label Studio takes.
            InputError: the port is taken; Label Studio would silently take the next one.
        """
        if not re.fullmatch(r"[0-9a-f]{40}", self.token):
            raise SourceRefusedError("the token must be 40 hexadecimal digits, such as `openssl rand -hex 20` prints")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise InputError(f"port {self.port} is taken ({error.strerror}); choose another one") from error


def serve(server: LabelStudioServer) -> int:
    """Run the server in the foreground until it is interrupted; its exit code."""
    server.check()
    command = server.command()
    server.files.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(command, env=server.variables())
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait()
    finally:
        process.kill()
        process.wait()
