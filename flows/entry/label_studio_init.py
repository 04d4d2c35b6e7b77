"""`fpenet label-studio init`."""

from __future__ import annotations

import argparse

from flows.entry.label_studio import TOKEN_ENV
from flows.entry.terminal import say
from schemas.errors import SpecError


def init(arguments: argparse.Namespace) -> int:
    """Raises `SpecError` in the end if the project has drifted and is not to be repaired."""
    from tasks.gateway.settings import LABEL_STUDIO_SECRET_ENV, required_secret
    from tasks.label_studio.client import connected, token_from_environment
    from tasks.label_studio.image_storage import image_storage
    from tasks.label_studio.project import set_up

    storage = image_storage(arguments.storage) if arguments.storage else None
    secret = required_secret(LABEL_STUDIO_SECRET_ENV).current.decode() if arguments.webhook_url else ""
    with connected(arguments.url, token_from_environment(TOKEN_ENV)) as connection:
        connection.version()
        done = set_up(
            connection,
            title=arguments.title,
            num_keypoints=arguments.keypoints,
            storage=storage,
            webhook_url=arguments.webhook_url,
            secret=secret,
            repair=arguments.repair,
        )
    for part in done.outcomes:
        say(f"{part.state:<8} {part.part}: {part.detail}")
        for text in part.drift:
            say(f"         - {text}")
    say(done.url)
    if done.drift:
        raise SpecError(
            f"project {done.project} '{done.title}'",
            f"{len(done.drift)} things are not as they were made, see above; put them right with --repair, or leave "
            "them if that is meant",
        )
    return 0
