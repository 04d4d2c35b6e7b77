"""Bundles for devices: an engine with all that a device team or a DeepStream user needs."""

from __future__ import annotations

import argparse
from typing import Any

from flows.entry.commands.parsers import add_command, add_place

STAGES = ("production", "canary", "staging")
EPILOG = """\
A bundle has the engine, its ONNX file and manifest, the line that builds it again, for a GPU nvinfer's configuration,
a Triton model repository, a bill of materials (CycloneDX), and a README with what was measured and what was not run.
The same engine gives the same bytes.

examples:
  # once; give signing.pem.pub to whoever will verify
  fpenet bundle keygen --key signing.pem
  # the production engine of target t4, signed
  FPENET_SIGNING_KEY_FILE=signing.pem fpenet bundle --target t4 --config faces.yaml -o t4.tar.gz
  # a folder, of the engine that the canary devices run
  fpenet bundle --target orin --stage canary --config faces.yaml -o orin
  fpenet bundle verify t4.tar.gz --public-key signing.pem.pub

Without a signing key the bundle is unsigned and says so; `verify` refuses it unless --unsigned-ok is given.
"""


def add(commands: Any) -> None:
    bundle = add_command(
        commands,
        "bundle",
        "bundle:bundle",
        "write the engine of a target with DeepStream and Triton files, checksums and signature",
    )
    bundle.formatter_class = argparse.RawDescriptionHelpFormatter
    bundle.epilog = EPILOG
    bundle.add_argument("--target", metavar="NAME", help="target device, such as t4; `fpenet status` lists them")
    bundle.add_argument("--stage", choices=STAGES, default="production", help="whose engine (default: %(default)s)")
    bundle.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="FILE.tar.gz, replaced, or a folder that is not there yet (default: bundles/ of the workspace)",
    )
    add_place(bundle)
    actions = bundle.add_subparsers(title="actions", metavar="ACTION")

    verify = add_command(
        actions,
        "verify",
        "bundle:verify",
        "check that a bundle is what its signer made",
        more="Changed, missing and added files are named. The public key must come from the signer, not with the "
        "bundle.",
    )
    verify.add_argument("path", metavar="BUNDLE", help="folder or .tar.gz")
    verify.add_argument("--public-key", metavar="FILE", help="the signer's public key (PEM)")
    verify.add_argument(
        "--unsigned-ok", action="store_true", help="without a public key, check the files against checksums only"
    )

    keygen = add_command(
        actions,
        "keygen",
        "bundle:keygen",
        "make a key to sign bundles with",
        more="Ed25519. The private key is not encrypted: keep it where only the signing machine reads it.",
    )
    keygen.add_argument("--key", required=True, metavar="FILE", help="private key; FILE.pub becomes the public one")
