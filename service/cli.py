"""The ``sensefield`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from service import __version__
from service.access.keys import Key, new_secret
from service.access.roles import ROLES
from service.errors import SensefieldError
from service.settings import CONFIG_VARIABLE, PREFIX, Settings

_USAGE = """sensefield serve [MODEL] [our flags] [any vllm serve flag]
       sensefield keys new --name NAME --role ROLE [--role ROLE ...]

Serves MODEL (a folder or a hub name) through vLLM, with logit control and distributions.
Without MODEL it serves the embedded SmolLM2-135M-Instruct. Our flags are below; every
other flag is vLLM's (`sensefield serve --help=all` lists them)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        print(f"sensefield {__version__}")
        return 0
    if given[:2] == ["keys", "new"]:
        return _new_key(given[2:])
    if given[:1] != ["serve"]:
        _parser().print_help()
        return 0 if given[:1] in ([], ["-h"], ["--help"]) else 2
    if {"-h", "--help"} & set(given):
        _parser().print_help()
        return 0
    own, engine_flags = _parser().parse_known_args(given[1:])
    _export(own)
    try:
        Settings()
        from service.launch import launch

        launch(engine_flags)
    except (SensefieldError, ValueError) as error:
        print(f"sensefield: {error}", file=sys.stderr)
        return 1
    return 0


def _new_key(arguments: Sequence[str]) -> int:
    """Print a new API key, which is not stored, and its line for the keys file."""
    parser = argparse.ArgumentParser(prog="sensefield keys new", allow_abbrev=False)
    parser.add_argument("--name", required=True, help="whose key it is, and whose vectors")
    parser.add_argument(
        "--role", action="append", required=True, choices=ROLES, help="may be given several times"
    )
    own = parser.parse_args(arguments)
    secret = new_secret()
    try:
        line = Key.of(own.name, own.role, secret).to_line()
    except ValueError as error:
        parser.error(str(error))
    print(f"key, not shown again:\n{secret}\n\nits line for --api-keys-file:\n{line}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(usage=_USAGE, add_help=False, allow_abbrev=False)
    parser.add_argument("--sensefield-config", metavar="FILE", help="TOML file of our settings")
    for name, field in Settings.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=field.description)
    return parser


def _export(own: argparse.Namespace) -> None:
    """Put our flags into the environment, where every process of the server reads them."""
    values = {name: value for name, value in vars(own).items() if value is not None}
    if file := values.pop("sensefield_config", None):
        os.environ[CONFIG_VARIABLE] = file
    for name, value in values.items():
        os.environ[f"{PREFIX}{name.upper()}"] = value


if __name__ == "__main__":
    sys.exit(main())
