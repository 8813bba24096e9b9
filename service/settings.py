"""Sensefield's own settings: flags, environment, file, in that order of precedence.

vLLM keeps its own flags. Every process of the server reads these settings from the environment,
where the command line puts its flags.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import limits
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from service.errors import StartupError

PREFIX = "SENSEFIELD_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
_GIB = 1 << 30


def data_dir() -> Path:
    """Return the folder for a user's data: ``$XDG_DATA_HOME/sensefield`` or its default."""
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "sensefield"


def _check_rate(rate: str | None) -> str | None:
    if rate is not None:
        limits.parse(rate)  # ValueError names the bad part
    return rate


class Settings(BaseSettings):
    """All settings, with units in their names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    vectors_dir: Annotated[str, BeforeValidator(str)] = Field(
        default_factory=lambda: str(data_dir() / "vectors"),
        description="Folder or fsspec URL of the steering vectors; several servers may share it.",
    )
    max_vectors: int = Field(
        256, ge=1, description="Most vectors the store takes; each costs 4 bytes a token."
    )
    vectors_bytes: int = Field(
        4 * _GIB, ge=1, description="Most bytes of vectors that the store takes."
    )
    api_keys_file: str | None = Field(
        None, description="File of API keys, as `sensefield keys new` prints its lines."
    )
    api_keys: str = Field(
        "", description="Lines of that file themselves, between semicolons or newlines."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port of /metrics, if it is to have one of its own."
    )
    max_body_bytes: int = Field(
        16 << 20, ge=1, description="Most bytes of a request's body; a vector's file has its own."
    )
    bodies_bytes: int = Field(
        1 * _GIB, ge=1, description="Most bytes of all bodies at once, of an API process."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Most tokens to generate for a choice; none means the context."
    )
    max_requests: int = Field(
        1024, ge=1, description="Most requests at once, running or waiting, of an API process."
    )
    key_concurrency: int | None = Field(
        None, ge=1, description="Most requests at once of one key's name, of an API process."
    )
    key_rate: Annotated[str | None, AfterValidator(_check_rate)] = Field(
        None, description="Most requests of one key's name in a time, as in 600/minute."
    )
    audit_prompts: bool = Field(
        False, description="Whether lines of the audit log hold what was asked."
    )
    max_top_logprobs: int = Field(
        1000, ge=0, description="Most alternatives a token in OpenAI's logprobs, prompts' too."
    )
    distribution_request_bytes: int = Field(
        1 * _GIB, ge=1, description="Most bytes of rows that one request may ask for."
    )
    distribution_total_bytes: int = Field(
        4 * _GIB, ge=1, description="Most bytes of rows promised to all running requests."
    )
    grammar_cpu_seconds: int = Field(
        8, ge=1, description="Most CPU seconds that compiling one request's grammar may take."
    )
    request_timeout_seconds: float | None = Field(
        None, gt=0, description="Longest a request may take in all; none means no limit."
    )
    receive_timeout_seconds: float = Field(
        60.0, gt=0, description="Longest wait for a request's head, and then for its body."
    )
    send_timeout_seconds: float = Field(
        60.0, gt=0, description="Longest wait for the reader of a stream to take 64 KiB."
    )
    stall_timeout_seconds: float = Field(
        120.0, gt=0, description="Longest silence of the engine before its requests get a 504."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - fixed by the base class
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags (as init arguments), then the environment, then the TOML file."""
        file = os.environ.get(CONFIG_VARIABLE)
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if file and not Path(file).exists():
            raise StartupError(f"{CONFIG_VARIABLE}: there is no file {file}")
        if file:
            sources += (TomlConfigSettingsSource(settings_cls, Path(file)),)
        return sources


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return this process's settings, read once."""
    return Settings()
