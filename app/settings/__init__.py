"""The service's settings: values read once at start from the environment, checked, frozen.

Owns names, defaults and bounds (section 1 of the contract). Opens only the files of secrets (`NAME_FILE`): no database,
no network.
"""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, IPvAnyNetwork, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.settings import checks, vapid_key

DEVELOPMENT_AUTH_SECRET = "development-only-auth-secret-not-for-production"
DEVELOPMENT_WALLET_QUEUE_SECRET = "development-only-wallet-queue-secret-not-for-production"
SANDBOX = "sandbox:"
"""The WALLET_URL of the built-in wallet."""
SECRETS = (
    "auth_secret",
    "auth_secret_previous",
    "wallet_api_token",
    "wallet_queue_secret",
    "metrics_token",
    "vapid_private_key",
    "database_url",
    "redis_url",
)
"""Settings that may also be given as NAME_FILE, the path of a file that holds the value; URLs may hold a password."""
_KEYS = ("auth_secret", "auth_secret_previous", "wallet_queue_secret", "wallet_api_token", "metrics_token")
_LISTS = ("notify_positions", "allowed_origins", "trusted_proxies", "webhook_hosts")
LARGEST_SECRET_FILE = 64 * 1024


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class WalletKeyFormat(StrEnum):
    """How an operation's idempotency key is sent to the wallet."""

    PLAIN = "plain"
    """`queue-{itemId}-{kind}`, as the wallet's guide prescribes."""
    UUID = "uuid"
    """The UUIDv5 of the plain key, as the wallet's published OpenAPI demands."""


class InvalidSettings(Exception):
    """The environment is not a working configuration; `str()` is one line that says how to correct it."""


class Settings(BaseSettings):
    """The validated settings: each field has the name of its environment variable in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=False, env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    environment: Environment = Environment.DEVELOPMENT
    database_url: str = Field("sqlite:///queue.db", repr=False)
    redis_url: str | None = Field(None, repr=False)
    web_concurrency: int = Field(1, ge=1, le=256)

    auth_secret: str = Field(DEVELOPMENT_AUTH_SECRET, repr=False)
    auth_secret_previous: str | None = Field(None, repr=False)
    auth_jwks_url: str | None = None
    auth_issuer: str | None = None
    auth_audience: str | None = None
    max_token_seconds: int = Field(0, ge=0, le=10 * 366 * 86400)

    wallet_url: str = SANDBOX
    wallet_api_token: str | None = Field(None, repr=False)
    wallet_queue_secret: str = Field(DEVELOPMENT_WALLET_QUEUE_SECRET, repr=False)
    wallet_key_format: WalletKeyFormat = WalletKeyFormat.PLAIN
    wallet_verify_holds: bool = False
    wallet_timeout_seconds: float = Field(5, gt=0, le=300)
    wallet_max_attempts: int = Field(10, ge=1, le=1000)
    wallet_retry_base_seconds: float = Field(0.5, gt=0, le=3600)
    wallet_retry_max_seconds: float = Field(300, gt=0, le=86400)
    settle_delay_seconds: float = Field(0, ge=0, le=30 * 86400)
    allow_plain_http: bool = False
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    vapid_private_key: str | None = Field(None, repr=False)
    vapid_subject: str | None = None

    max_queue_depth: int = Field(50, ge=1, le=1000)
    default_duration_seconds: int = Field(60, ge=1, le=86400)
    max_duration_seconds: int = Field(3600, ge=1, le=86400)
    notify_positions: Annotated[tuple[int, ...], NoDecode] = (3, 1)
    rope_drop_seconds: float = Field(600, ge=0, le=30 * 86400)
    started_timeout_seconds: float = Field(3600, ge=0, le=30 * 86400)
    disconnect_grace_seconds: float = Field(120, ge=0, le=30 * 86400)
    user_intakes_per_minute: int = Field(60, ge=0, le=1_000_000)
    command_seconds: float = Field(5, gt=0, le=300)
    retention_days: int = Field(0, ge=0, le=36_500)

    metrics_token: str | None = Field(None, repr=False)
    traces_url: str | None = None

    public_rooms: bool = True
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = ()
    sockets_per_address: int = Field(200, ge=0, le=1_000_000)
    requests_per_address: int = Field(0, ge=0, le=1_000_000)
    coalesce_ms: int = Field(50, ge=0, le=5000)

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("notify_positions")
    @classmethod
    def _positions_are_positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(position < 1 for position in value):
            raise ValueError("positions count from 1")
        return tuple(dict.fromkeys(value))

    @field_validator("auth_secret", "auth_secret_previous", "wallet_queue_secret")
    @classmethod
    def _keys_are_long_enough(cls, value: str | None) -> str | None:
        return value if value is None else checks.check_key(value)

    @field_validator("wallet_api_token", "metrics_token")
    @classmethod
    def _bearer_tokens_are_valid(cls, value: str | None) -> str | None:
        return value if value is None else checks.check_bearer(value)

    @field_validator("host")
    @classmethod
    def _host_is_valid(cls, value: str) -> str:
        return checks.check_host(value)

    @field_validator("webhook_hosts")
    @classmethod
    def _webhook_hosts_are_valid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(checks.check_host(host).lower() for host in value))

    @field_validator("vapid_private_key")
    @classmethod
    def _vapid_key_is_valid(cls, value: str | None) -> str | None:
        if value is not None:
            vapid_key.read_private_key(value)
        return value

    @field_validator("vapid_subject")
    @classmethod
    def _vapid_subject_is_valid(cls, value: str | None) -> str | None:
        return value if value is None else checks.check_contact(value)

    @field_validator("database_url")
    @classmethod
    def _database_url_is_valid(cls, value: str) -> str:
        return checks.check_database_url(value)

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_valid(cls, value: str | None) -> str | None:
        return value if value is None else checks.check_redis_url(value)

    @field_validator("auth_jwks_url")
    @classmethod
    def _jwks_url_is_valid(cls, value: str | None) -> str | None:
        if value is not None:
            checks.http_url(value)
        return value

    @field_validator("traces_url")
    @classmethod
    def _traces_url_is_valid(cls, value: str | None) -> str | None:
        if value is not None:
            checks.http_url(value)
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins_are_valid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(checks.is_origin, value)):
            raise ValueError("must be origins as a browser sends them: https://site.example, without a path")
        return value

    @field_validator("wallet_url")
    @classmethod
    def _wallet_url_is_valid(cls, value: str) -> str:
        return value if value == SANDBOX else checks.check_base_url(value)

    @model_validator(mode="after")
    def _values_fit_together(self) -> Self:
        if self.web_concurrency > 1 and (self.uses_sqlite or self.redis_url is None):
            raise ValueError("WEB_CONCURRENCY above 1 needs a PostgreSQL DATABASE_URL and a REDIS_URL")
        if self.default_duration_seconds > self.max_duration_seconds:
            raise ValueError("DEFAULT_DURATION_SECONDS must not exceed MAX_DURATION_SECONDS")
        if self.wallet_retry_base_seconds > self.wallet_retry_max_seconds:
            raise ValueError("WALLET_RETRY_BASE_SECONDS must not exceed WALLET_RETRY_MAX_SECONDS")
        if (self.vapid_private_key is None) != (self.vapid_subject is None):
            raise ValueError("VAPID_PRIVATE_KEY and VAPID_SUBJECT are set together or not at all")
        if self.environment is Environment.PRODUCTION and (insecure := self._insecure()):
            raise ValueError("ENVIRONMENT=production refuses insecure values: " + ", ".join(insecure))
        return self

    def _insecure(self) -> list[str]:
        """The settings that production refuses, each as a phrase that says what to change."""
        problems = []
        if self.auth_jwks_url is None and self.auth_secret == DEVELOPMENT_AUTH_SECRET:
            problems.append("set AUTH_SECRET or AUTH_JWKS_URL")
        if self.wallet_url == SANDBOX:
            problems.append("set WALLET_URL to the real wallet service")
        if self.wallet_queue_secret == DEVELOPMENT_WALLET_QUEUE_SECRET:
            problems.append("set WALLET_QUEUE_SECRET")
        if self.wallet_api_token is None:
            problems.append("set WALLET_API_TOKEN")
        return problems + self._weak_keys() + self._plain_urls()

    def _weak_keys(self) -> list[str]:
        problems = []
        keys = {name.upper(): key for name in _KEYS if (key := getattr(self, name)) and name in self.model_fields_set}
        for name, key in keys.items():
            if key in (DEVELOPMENT_AUTH_SECRET, DEVELOPMENT_WALLET_QUEUE_SECRET):
                problems.append(f"{name} is a published development key")
            elif checks.is_guessable(key):
                problems.append(f"{name} is not random; make one with: openssl rand -hex 32")
        # While keys change, the previous AUTH_SECRET may still be the current one.
        purposes = [
            (name, key) for name, key in keys.items() if name != "AUTH_SECRET_PREVIOUS" or key != self.auth_secret
        ]
        for index, (name, key) in enumerate(purposes):
            problems += [f"{name} and {other} are the same" for other, same in purposes[index + 1 :] if same == key]
        return problems

    def _plain_urls(self) -> list[str]:
        if self.allow_plain_http:
            return []
        return [
            f"{name} is plain http (https, or ALLOW_PLAIN_HTTP=true where the network is private)"
            for name, url in (("WALLET_URL", self.wallet_url), ("AUTH_JWKS_URL", self.auth_jwks_url))
            if url is not None
            and url.startswith("http:")
            and not checks.is_loopback(checks.http_url(url).hostname or "")
        ]

    @property
    def uses_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite:")

    @property
    def is_public_development(self) -> bool:
        """Whether development settings listen on an address that others can reach."""
        return self.environment is Environment.DEVELOPMENT and not checks.is_loopback(self.host)


def read_settings(**overrides: Any) -> Settings:
    """The settings of this process: the environment and the files of secrets named in it; `overrides` take precedence.

    Raises InvalidSettings with one line that names every wrong variable and repeats no value, since values may be
    secrets.
    """
    try:
        return Settings(**{**_secrets_from_files(os.environ), **overrides})
    except ValidationError as error:
        problems = dict.fromkeys(_one_problem(problem["loc"], problem["msg"]) for problem in error.errors())
        raise InvalidSettings("; ".join(problems)) from None


def _secrets_from_files(environment: Mapping[str, str]) -> dict[str, str]:
    given = {name.lower(): value for name, value in environment.items() if value}
    secrets, problems = {}, []
    for name in SECRETS:
        if (path := given.get(f"{name}_file")) is None:
            continue
        variable = f"{name}_FILE".upper()
        if name in given:
            problems.append(f"{variable}: {name.upper()} is set as well; set one of the two")
            continue
        try:
            secrets[name] = _secret_from_file(Path(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(f"{variable}: the file cannot be used: {reason}")
    if problems:
        raise InvalidSettings("; ".join(problems))
    return secrets


def _secret_from_file(path: Path) -> str:
    """The file's text without the line break at its end."""
    with path.open("rb") as file:
        content = file.read(LARGEST_SECRET_FILE + 1)
    if len(content) > LARGEST_SECRET_FILE:
        raise ValueError("it is too large")
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if not secret:
        raise ValueError("it is empty")
    return secret


def _one_problem(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{str(location[0]).upper()}: {message}" if location else message
