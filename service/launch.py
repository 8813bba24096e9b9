"""Runs vLLM's ``serve`` with Sensefield plugged in."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib.metadata import entry_points

from logit_processors.wire import PROCESSOR
from service.access.keys import Key, KeyRing
from service.access.roles import ROLES
from service.embedded_model import embedded_model_dir
from service.engine.front_ends import refuse_flags, refuse_variables
from service.errors import StartupError
from service.plugins import NAME, endpoint_plugin
from service.settings import PREFIX, settings
from service.startup import passed
from service.vectors.store import VectorStore

DOOR = "service.access.door.Door"
WORKER = "service.engine.serving_worker.ServingWorker"
WORKER_EXTENSION = "service.engine.worker.SensefieldWorker"
EMBEDDED_NAME = "smollm2-135m-instruct"
DRAIN_SECONDS = 30
"""Default of --shutdown-timeout: time for running requests to finish after SIGTERM."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PLUGIN_GROUPS = ("vllm.general_plugins", "vllm.endpoint_plugins")


def launch(flags: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        flags: model and flags as ``vllm serve`` takes them; without a model, the embedded one.

    Raises:
        StartupError: the vLLM version, a flag or a variable is not supported.

    """
    # Before the imports, which take half a minute.
    refuse_variables(os.environ)
    refuse_flags(lambda flag: _given(flags, flag))
    allow_plugins()
    # After its engine has died, the server must exit as `service.life` says, not with 0.
    os.environ["VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"] = "1"

    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args

    from logit_processors.registry import PluginError, controls
    from service.engine import seams
    from service.engine.seam import Where

    passed("imports")
    try:
        controls()
    except PluginError as error:
        raise StartupError(str(error)) from None
    seams.assert_supported()
    # vLLM only logs a plugin's exceptions, and would serve without ours.
    endpoint_plugin()
    cli_env_setup()
    args = parse(flags)
    passed("flags and model")
    # Check before the model is loaded, which may take minutes.
    VectorStore(settings().vectors_dir)
    configure_logging_from_args(args)
    seams.install(Where.LAUNCHER)
    command = ServeSubcommand()
    command.validate(args)
    command.cmd(args)


def parse(flags: Sequence[str]) -> Namespace:
    """Parse the flags with vLLM's parser, and plug Sensefield in.

    Raises:
        StartupError: a flag that Sensefield cannot serve with.

    """
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(description="sensefield")
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    if _given(flags, "--served-model-name") and flags[0].startswith("-"):
        # These flags take all values that follow: the model must stand before them.
        flags = _embedded(flags)
    args: Namespace = parser.parse_args(["serve", *flags])
    if args.model_tag is None:
        flags = _embedded(flags)
        args = parser.parse_args(["serve", *flags])
    plug_in(args, flags)
    return args


def plug_in(args: Namespace, flags: Sequence[str]) -> None:
    """Add our processor, worker and its extension to vLLM's parsed flags.

    Raises:
        StartupError: a flag that Sensefield cannot serve with.

    """
    # Checked again: flags may come from vLLM's --config file, or be abbreviated.
    refuse_flags(lambda flag: getattr(args, flag[2:].replace("-", "_")) not in (None, False))
    for flag, given in {
        "--worker-cls": args.worker_cls not in (None, "auto") and args.worker_cls,
        "--worker-extension-cls": args.worker_extension_cls,
    }.items():
        if given:
            raise StartupError(f"{flag} {given}: Sensefield needs that place")
    if args.logprobs_mode != "raw_logprobs":
        raise StartupError(
            f"--logprobs-mode {args.logprobs_mode}: Sensefield serves raw_logprobs; ask for "
            'the stage "controlled" of a distribution to see the effect of control'
        )
    if args.enable_batch_sharded_sampling:
        raise StartupError(
            "--enable-batch-sharded-sampling: Sensefield keeps rows where every rank samples all"
        )
    args.worker_cls = WORKER
    args.worker_extension_cls = WORKER_EXTENSION
    args.middleware = [*args.middleware, DOOR]
    # The audit log has more about each request, including its id.
    args.disable_uvicorn_access_log = True
    args.enable_request_id_headers = False
    if (cap := settings().max_tokens) is not None:
        args.override_generation_config = {
            **(args.override_generation_config or {}),
            "max_new_tokens": cap,
        }
    _take_keys(args)
    args.logits_processors = [*(args.logits_processors or []), PROCESSOR]
    if not _given(flags, "--shutdown-timeout"):
        args.shutdown_timeout = DRAIN_SECONDS
    if not args.enforce_eager and _on_cpu() and not _has_compiler():
        _say("no C++ compiler found: running eagerly (--enforce-eager)")
        args.enforce_eager = True


def _take_keys(args: Namespace) -> None:
    """Turn vLLM's API keys into our keys with every role: vLLM guards a few paths only."""
    secrets = args.api_key or [os.environ.get("VLLM_API_KEY", "")]
    keys = [Key.of("vllm", ROLES, secret) for secret in secrets if secret]
    args.api_key = None
    os.environ.pop("VLLM_API_KEY", None)
    own = settings()
    lines = "\n".join([own.api_keys, *(key.to_line() for key in keys)])
    if keys:
        os.environ[f"{PREFIX}API_KEYS"] = lines
        settings.cache_clear()
    if not KeyRing.read(lines, own.api_keys_file) and _is_reachable(args):
        _say("no API keys: all who can reach this server can use it; see --api-keys-file")


def _is_reachable(args: Namespace) -> bool:
    """Say whether other machines can reach the server."""
    return not args.uds and args.host not in _LOOPBACK


def _embedded(flags: Sequence[str]) -> list[str]:
    """Return the flags with defaults for the embedded model."""
    flags = [str(embedded_model_dir()), *flags]
    for flag, value in {
        "--served-model-name": EMBEDDED_NAME,
        "--max-model-len": "2048",
        "--enforce-eager": None,
    }.items():
        if not _given(flags, flag):
            flags += [flag] if value is None else [flag, value]
    if _on_cpu():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return flags


def allow_plugins() -> None:
    """Add Sensefield to ``VLLM_PLUGINS``, an allow-list, and keep other plugins allowed."""
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is None:
        names = {point.name for point in entry_points(group=_PLUGIN_GROUPS[0])}
    else:
        names = {name for name in allowed.split(",") if name}
    os.environ["VLLM_PLUGINS"] = ",".join(sorted(names | {NAME}))
    for group in _PLUGIN_GROUPS:
        if NAME not in {point.name for point in entry_points(group=group)}:
            raise StartupError(
                f"the distribution sensefield is not installed (no entry point in {group}): "
                "install it with pip, a source folder on the path is not enough"
            )


def _given(flags: Sequence[str], flag: str) -> bool:
    spellings = (flag, flag.replace("-", "_").replace("__", "--", 1))
    return any(f == s or f.startswith(f"{s}=") for f in flags for s in spellings)


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


def _say(message: str) -> None:
    print(f"sensefield: {message}", file=sys.stderr, flush=True)
