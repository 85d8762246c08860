"""The environment: the contract's names and defaults, and one clear line for whatever is wrong."""

import pytest
from pydantic import ValidationError

from app.settings import InvalidSettings, Settings, read_settings

# The contract's table of variables and their defaults. The two keys are checked below.
DEFAULTS: dict[str, object] = {
    "HOST": "127.0.0.1",
    "PORT": 8000,
    "ENVIRONMENT": "development",
    "DATABASE_URL": "sqlite:///queue.db",
    "REDIS_URL": None,
    "WEB_CONCURRENCY": 1,
    "AUTH_JWKS_URL": None,
    "AUTH_ISSUER": None,
    "AUTH_AUDIENCE": None,
    "WALLET_URL": "sandbox:",
    "WALLET_API_TOKEN": None,
    "WALLET_VERIFY_HOLDS": False,
    "WALLET_TIMEOUT_SECONDS": 5,
    "WALLET_MAX_ATTEMPTS": 10,
    "WALLET_RETRY_BASE_SECONDS": 0.5,
    "WALLET_RETRY_MAX_SECONDS": 300,
    "SETTLE_DELAY_SECONDS": 0,
    "MAX_QUEUE_DEPTH": 50,
    "DEFAULT_DURATION_SECONDS": 60,
    "MAX_DURATION_SECONDS": 3600,
    "NOTIFY_POSITIONS": (3, 1),
    "ROPE_DROP_SECONDS": 600,
    "STARTED_TIMEOUT_SECONDS": 3600,
    "DISCONNECT_GRACE_SECONDS": 120,
    "USER_INTAKES_PER_MINUTE": 60,
    "PUBLIC_ROOMS": True,
    "ALLOWED_ORIGINS": (),
    "COALESCE_MS": 50,
}
KEYS = ("AUTH_SECRET", "WALLET_QUEUE_SECRET")
LONG_KEY = "k" * 32
PRODUCTION = {
    "ENVIRONMENT": "production",
    "AUTH_SECRET": LONG_KEY,
    "WALLET_QUEUE_SECRET": LONG_KEY,
    "WALLET_URL": "https://wallet.example",
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of whoever runs the tests has a say."""
    for name in (*DEFAULTS, *KEYS):
        monkeypatch.delenv(name, raising=False)


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """The one line that an environment is refused with."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as refused:
        read_settings()
    line = str(refused.value)
    assert line
    assert "\n" not in line
    return line


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_every_default_is_the_contracts(name: str, default: object) -> None:
    assert getattr(read_settings(), name.lower()) == default


def test_the_settings_are_exactly_the_contracts_variables() -> None:
    assert {name.upper() for name in Settings.model_fields} == {*DEFAULTS, *KEYS}


@pytest.mark.parametrize("name", KEYS)
def test_the_development_keys_are_fixed_and_long_enough(name: str) -> None:
    key = getattr(read_settings(), name.lower())
    assert key == getattr(read_settings(), name.lower())
    assert len(key) >= 32
    assert "development" in key


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("PORT", "9000", 9000),
        ("WALLET_VERIFY_HOLDS", "true", True),
        ("PUBLIC_ROOMS", "0", False),
        ("WALLET_RETRY_BASE_SECONDS", "0.25", 0.25),
        ("DATABASE_URL", "postgres://db.example/queue", "postgres://db.example/queue"),
        ("DATABASE_URL", "postgresql://db.example/queue", "postgresql://db.example/queue"),
        ("REDIS_URL", "redis://cache.example:6379/0", "redis://cache.example:6379/0"),
        ("REDIS_URL", "rediss://cache.example", "rediss://cache.example"),
        ("AUTH_JWKS_URL", "https://site.example/keys", "https://site.example/keys"),
        ("WALLET_URL", "https://wallet.example/v1/", "https://wallet.example/v1"),
        ("WALLET_URL", "sandbox:", "sandbox:"),
        ("ROPE_DROP_SECONDS", "0", 0),
        ("STARTED_TIMEOUT_SECONDS", "0", 0),
        ("DISCONNECT_GRACE_SECONDS", "0", 0),
        ("USER_INTAKES_PER_MINUTE", "0", 0),
        ("AUTH_SECRET", LONG_KEY, LONG_KEY),
        ("WALLET_QUEUE_SECRET", "ü" * 16, "ü" * 16),
    ],
)
def test_a_variable_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: object
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(read_settings(), name.lower()) == read


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert getattr(read_settings(), name.lower()) == DEFAULTS[name]


def test_an_override_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    assert read_settings(port=0).port == 0


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read_settings().port = 1  # type: ignore[misc]


WRONG = {
    "PORT": ["abc", "-1", "65536", "80.5"],
    "ENVIRONMENT": ["staging"],
    "DATABASE_URL": ["mysql://db.example/queue", "sqlite://", "queue.db"],
    "REDIS_URL": ["cache.example:6379", "http://cache.example"],
    "WEB_CONCURRENCY": ["0", "-2", "many"],
    "AUTH_SECRET": ["k" * 31],
    "AUTH_JWKS_URL": ["site.example/keys", "file:///keys", "https://"],
    "WALLET_URL": ["wallet.example", "ftp://wallet.example", "sandbox", "https://"],
    "WALLET_QUEUE_SECRET": ["short"],
    "WALLET_VERIFY_HOLDS": ["perhaps"],
    "WALLET_TIMEOUT_SECONDS": ["0", "-1", "nan", "inf", "soon"],
    "WALLET_MAX_ATTEMPTS": ["0", "2.5"],
    "WALLET_RETRY_BASE_SECONDS": ["0", "nan"],
    "WALLET_RETRY_MAX_SECONDS": ["0", "inf"],
    "SETTLE_DELAY_SECONDS": ["-1", "nan"],
    "MAX_QUEUE_DEPTH": ["0", "1001", "x"],
    "DEFAULT_DURATION_SECONDS": ["0"],
    "MAX_DURATION_SECONDS": ["0"],
    "NOTIFY_POSITIONS": ["0", "3,-1", "third", "1;2"],
    "ROPE_DROP_SECONDS": ["-1", "nan"],
    "STARTED_TIMEOUT_SECONDS": ["-1", "inf"],
    "DISCONNECT_GRACE_SECONDS": ["-1", "a"],
    "USER_INTAKES_PER_MINUTE": ["-1", "1.5"],
    "PUBLIC_ROOMS": ["maybe"],
    "ALLOWED_ORIGINS": [
        "site.example",
        "https://site.example/",
        "https://site.example/page",
        "*",
        "ftp://site.example",
        "https://Site.example",
    ],
    "COALESCE_MS": ["-1", "5001"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_line_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    assert refusal(monkeypatch, **{name: value}).startswith(f"{name}: ")


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    line = refusal(monkeypatch, PORT="x", MAX_QUEUE_DEPTH="0")
    assert "PORT: " in line
    assert "MAX_QUEUE_DEPTH: " in line


@pytest.mark.parametrize("name", [*KEYS, "DATABASE_URL", "REDIS_URL", "WALLET_URL"])
def test_a_refusal_never_repeats_a_value_that_may_be_secret(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert "hunter2" not in refusal(monkeypatch, **{name: "hunter2"})


def test_the_settings_do_not_print_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "AUTH_SECRET": "hunter2" * 6,
        "WALLET_QUEUE_SECRET": "hunter2" * 6,
        "WALLET_API_TOKEN": "hunter2",
        "DATABASE_URL": "postgresql://queue:hunter2@db.example/queue",
        "REDIS_URL": "redis://:hunter2@cache.example",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    assert "hunter2" not in repr(read_settings())


@pytest.mark.parametrize(
    ("value", "positions"),
    [("1", (1,)), ("5, 3 ,1", (5, 3, 1)), ("3,1,3", (3, 1)), ("2,,", (2,))],
)
def test_positions_are_a_list_with_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, positions: tuple[int, ...]
) -> None:
    monkeypatch.setenv("NOTIFY_POSITIONS", value)
    assert read_settings().notify_positions == positions


def test_origins_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_ORIGINS", " https://site.example, http://localhost:3000 ,")
    assert read_settings().allowed_origins == ("https://site.example", "http://localhost:3000")


class TestValuesTogether:
    def test_several_processes_need_postgresql_and_redis(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "WEB_CONCURRENCY" in refusal(monkeypatch, WEB_CONCURRENCY="2")
        monkeypatch.setenv("DATABASE_URL", "postgresql://db.example/queue")
        assert "REDIS_URL" in refusal(monkeypatch)
        monkeypatch.setenv("REDIS_URL", "redis://cache.example")
        assert read_settings().web_concurrency == 2
        assert not read_settings().uses_sqlite
        assert "DATABASE_URL" in refusal(monkeypatch, DATABASE_URL="sqlite:///queue.db")

    def test_the_default_duration_must_be_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "DEFAULT_DURATION_SECONDS" in refusal(monkeypatch, MAX_DURATION_SECONDS="30")

    def test_the_first_retry_cannot_wait_longer_than_the_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "WALLET_RETRY_BASE_SECONDS" in refusal(monkeypatch, WALLET_RETRY_MAX_SECONDS="0.1")


class TestProduction:
    def settle(self, monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
        for name, value in {**PRODUCTION, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    def test_it_starts_when_nothing_is_insecure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settle(monkeypatch)
        assert read_settings().environment == "production"

    def test_the_host_sites_own_tokens_make_the_secret_needless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settle(monkeypatch, AUTH_SECRET=None, AUTH_JWKS_URL="https://site.example/keys")
        assert read_settings().auth_jwks_url == "https://site.example/keys"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("AUTH_SECRET", None),
            ("AUTH_SECRET", "k" * 31),
            ("AUTH_SECRET", Settings.model_fields["auth_secret"].default),
            ("WALLET_QUEUE_SECRET", None),
            ("WALLET_QUEUE_SECRET", "k" * 31),
            ("WALLET_QUEUE_SECRET", Settings.model_fields["wallet_queue_secret"].default),
            ("WALLET_URL", None),
            ("WALLET_URL", "sandbox:"),
        ],
    )
    def test_an_insecure_value_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
    ) -> None:
        self.settle(monkeypatch, **{name: value})
        assert name in refusal(monkeypatch)

    def test_all_insecure_values_are_named_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        line = refusal(monkeypatch, ENVIRONMENT="production")
        assert all(name in line for name in ("AUTH_SECRET", "AUTH_JWKS_URL", "WALLET_URL", "WALLET_QUEUE_SECRET"))
