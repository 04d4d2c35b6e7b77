"""`fpenet bundle`, `fpenet bundle verify`, `fpenet bundle keygen`."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.entry.terminal import console, say
from schemas.errors import InputError


def bundle(arguments: argparse.Namespace) -> int:
    from deploy.bundle.bundle import make_bundle
    from deploy.bundle.release import release_at
    from deploy.bundle.signing import KEY_VARIABLE, signing_key_from_environment
    from flows.entry.workspaces import workspace_of
    from tasks.bundle_accuracy import accuracy_of

    if not arguments.target:
        raise InputError("whose engine? name a target device with --target, such as cpu; `fpenet status` lists them")
    workspace = workspace_of(arguments)
    default = workspace.bundles / f"{arguments.target}-{arguments.stage}.tar.gz"
    output = Path(arguments.output) if arguments.output else default
    key = signing_key_from_environment()
    release = release_at(workspace.targets, arguments.target, arguments.stage, exports=workspace.exports)
    provenance = release.provenance
    accuracy = accuracy_of(workspace.verdicts, provenance.model_name, provenance.model_version)
    made = make_bundle(release, output, accuracy=accuracy, key=key)
    say(
        f"{made.path}: {provenance.model_name} {provenance.model_version}, {release.precision.upper()} engine "
        f"{release.manifest['build_key'][:8]} of {release.stage} for {release.target.title}; {len(made.files)} "
        f"files, {sum(made.files.values()):,} bytes",
    )
    if made.fingerprint:
        say(f"signed by {made.fingerprint}")
    else:
        console.print(f"[yellow]unsigned[/]: {KEY_VARIABLE} names no key; `fpenet bundle keygen` makes one")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    from deploy.bundle.bundle import verify_bundle

    public_key = Path(arguments.public_key) if arguments.public_key else None
    found = verify_bundle(Path(arguments.path), public_key=public_key, unsigned_ok=arguments.unsigned_ok)
    signer = f"signed by {found.fingerprint}" if found.fingerprint else "who made it was not checked"
    say(f"{arguments.path}: {found.files} files are as they were made; {signer}")
    return 0


def keygen(arguments: argparse.Namespace) -> int:
    from deploy.bundle.signing import KEY_VARIABLE, PUBLIC_SUFFIX, make_keys

    made = make_keys(Path(arguments.key))
    say(
        f"{arguments.key}: private key, for {KEY_VARIABLE}; keep it secret\n"
        f"{arguments.key}{PUBLIC_SUFFIX}: public key, for those who verify\n"
        f"fingerprint {made}"
    )
    return 0
