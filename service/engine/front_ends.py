"""Refuses, at the start, flags and variables that add a front end beside the door.

Keys, limits, the audit log and control are in vLLM's own HTTP server. Another front end of the
same engine has none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from service.errors import StartupError

_NO_DOOR = "it has no keys, no limits and no control"
FLAGS = {
    "--grpc": f"the gRPC front end is not served: {_NO_DOOR}",
    "--grpc-port": f"the Rust front end's gRPC services are not served: {_NO_DOOR}",
    "--data-parallel-multi-port-external-lb": "its supervisor is a server of its own without keys, "
    "and starts servers whose engines nothing checks; start one server for each rank with "
    "--data-parallel-rank",
    "--enable-scale-out": "its route takes sampling parameters past the limits of a request",
    "--tokens-only": "its route takes sampling parameters past the limits of a request",
}
"""Refused flags, and the reason."""
_SWITCHES = {
    "VLLM_USE_RUST_FRONTEND": f"the Rust front end is not served: {_NO_DOOR}",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "it keeps each answer, streams too, until it is whole, "
    "and logs it; --audit-prompts true logs prompts",
}
"""Refused boolean variables of vLLM, and the reason."""
_CUSTOM = "code of its own for SageMaker would stand before the keys, or in the place of our routes"
_HOOKS = (
    "CUSTOM_FASTAPI_PING_HANDLER",
    "CUSTOM_FASTAPI_INVOCATION_HANDLER",
    "CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE",
    "CUSTOM_FASTAPI_MIDDLEWARE_PRE_POST_PROCESS",
    "CUSTOM_PRE_PROCESS",
    "CUSTOM_POST_PROCESS",
)
"""Variables that name such code."""


def refuse_flags(is_given: Callable[[str], bool]) -> None:
    """Refuse flags of front ends that bypass the door.

    Args:
        is_given: says whether a flag, as ``--some-flag``, is on.

    Raises:
        StartupError: such a flag is on.

    """
    for flag, reason in FLAGS.items():
        if is_given(flag):
            raise StartupError(f"{flag}: {reason}")


def refuse_variables(environment: Mapping[str, str]) -> None:
    """Refuse variables, and a SageMaker script, that bypass the door.

    Raises:
        StartupError: such a variable or script is set.

    """
    for name, reason in _SWITCHES.items():
        if environment.get(name, "").strip().lower() not in ("", "0", "false"):
            raise StartupError(f"{name}={environment[name]}: {reason}")
    for name in _HOOKS:
        if environment.get(name):
            raise StartupError(f"{name}={environment[name]}: {_CUSTOM}")
    folder = environment.get("SAGEMAKER_MODEL_PATH", "/opt/ml/model/")
    script = Path(folder, environment.get("CUSTOM_SCRIPT_FILENAME", "model.py"))
    if script.is_file():
        raise StartupError(f"{script}: {_CUSTOM}; serve with SAGEMAKER_MODEL_PATH somewhere else")
