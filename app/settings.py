"""The service's settings: values read once at start from the environment, checked, frozen.

Owns names, defaults and bounds (section 1 of the contract). Never opens anything: no database, no network, no file.
"""

from enum import StrEnum
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEVELOPMENT_AUTH_SECRET = "development-only-auth-secret-not-for-production"
DEVELOPMENT_WALLET_QUEUE_SECRET = "development-only-wallet-queue-secret-not-for-production"
SANDBOX = "sandbox:"
"""The WALLET_URL of the built-in wallet."""
MINIMUM_KEY_BYTES = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as the hash output."""


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class InvalidSettings(Exception):
    """The environment does not make a working configuration; `str()` is one line that says what to change."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=False, env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    environment: Environment = Environment.DEVELOPMENT
    database_url: str = Field("sqlite:///queue.db", repr=False)
    redis_url: str | None = Field(None, repr=False)
    web_concurrency: int = Field(1, ge=1, le=256)

    auth_secret: str = Field(DEVELOPMENT_AUTH_SECRET, repr=False)
    auth_jwks_url: str | None = None
    auth_issuer: str | None = None
    auth_audience: str | None = None

    wallet_url: str = SANDBOX
    wallet_api_token: str | None = Field(None, repr=False)
    wallet_queue_secret: str = Field(DEVELOPMENT_WALLET_QUEUE_SECRET, repr=False)
    wallet_verify_holds: bool = False
    wallet_timeout_seconds: float = Field(5, gt=0, le=300)
    wallet_max_attempts: int = Field(10, ge=1, le=1000)
    wallet_retry_base_seconds: float = Field(0.5, gt=0, le=3600)
    wallet_retry_max_seconds: float = Field(300, gt=0, le=86400)
    settle_delay_seconds: float = Field(0, ge=0, le=30 * 86400)

    max_queue_depth: int = Field(50, ge=1, le=1000)
    default_duration_seconds: int = Field(60, ge=1, le=86400)
    max_duration_seconds: int = Field(3600, ge=1, le=86400)
    notify_positions: Annotated[tuple[int, ...], NoDecode] = (3, 1)
    rope_drop_seconds: float = Field(600, ge=0, le=30 * 86400)
    started_timeout_seconds: float = Field(3600, ge=0, le=30 * 86400)
    disconnect_grace_seconds: float = Field(120, ge=0, le=30 * 86400)
    user_intakes_per_minute: int = Field(60, ge=0, le=1_000_000)

    public_rooms: bool = True
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    coalesce_ms: int = Field(50, ge=0, le=5000)

    @field_validator("notify_positions", "allowed_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("notify_positions")
    @classmethod
    def _positions_are_positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(position < 1 for position in value):
            raise ValueError("positions count from 1")
        return tuple(dict.fromkeys(value))

    @field_validator("auth_secret", "wallet_queue_secret")
    @classmethod
    def _keys_are_long_enough(cls, value: str) -> str:
        if len(value.encode()) < MINIMUM_KEY_BYTES:
            raise ValueError(f"must be at least {MINIMUM_KEY_BYTES} bytes long")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_is_known(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError("must start with sqlite:/// or postgresql://")
        return value

    @field_validator("redis_url")
    @classmethod
    def _bus_is_redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("auth_jwks_url")
    @classmethod
    def _keys_are_reachable_by_http(cls, value: str | None) -> str | None:
        if value is not None and _http_origin(value) is None:
            raise ValueError("must be an http(s) URL")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins_are_as_a_browser_sends_them(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(_http_origin(origin) != origin for origin in value):
            raise ValueError("must be origins as a browser sends them: https://site.example, without a path")
        return value

    @field_validator("wallet_url")
    @classmethod
    def _wallet_is_reachable_by_http(cls, value: str) -> str:
        if value != SANDBOX and _http_origin(value) is None:
            raise ValueError("must be sandbox: or an http(s) base URL")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _values_fit_together(self) -> Self:
        if self.web_concurrency > 1 and (self.uses_sqlite or self.redis_url is None):
            raise ValueError("WEB_CONCURRENCY above 1 needs a PostgreSQL DATABASE_URL and a REDIS_URL")
        if self.default_duration_seconds > self.max_duration_seconds:
            raise ValueError("DEFAULT_DURATION_SECONDS must not exceed MAX_DURATION_SECONDS")
        if self.wallet_retry_base_seconds > self.wallet_retry_max_seconds:
            raise ValueError("WALLET_RETRY_BASE_SECONDS must not exceed WALLET_RETRY_MAX_SECONDS")
        if self.environment is Environment.PRODUCTION:
            self._refuse_insecure_defaults()
        return self

    def _refuse_insecure_defaults(self) -> None:
        insecure = []
        if self.auth_jwks_url is None and self.auth_secret == DEVELOPMENT_AUTH_SECRET:
            insecure.append("set AUTH_SECRET or AUTH_JWKS_URL")
        if self.wallet_url == SANDBOX:
            insecure.append("set WALLET_URL to the real wallet service")
        if self.wallet_queue_secret == DEVELOPMENT_WALLET_QUEUE_SECRET:
            insecure.append("set WALLET_QUEUE_SECRET")
        if insecure:
            raise ValueError("ENVIRONMENT=production refuses insecure defaults: " + ", ".join(insecure))

    @property
    def uses_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite:")


def read_settings(**overrides: Any) -> Settings:
    """The settings of this process: the environment, and `overrides` on top.

    Raises InvalidSettings with one line that names every wrong variable; the values themselves, which may be secrets,
    are not repeated.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(_one_problem(problem["loc"], problem["msg"]) for problem in error.errors())
        raise InvalidSettings(problems) from None


def _http_origin(url: str) -> str | None:
    """Scheme, host and port of an http(s) URL; None for anything else."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}" if parts.scheme in ("http", "https") and parts.netloc else None


def _one_problem(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{str(location[0]).upper()}: {message}" if location else message
