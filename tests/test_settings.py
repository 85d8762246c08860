"""The environment: the contract's names and defaults, and one clear line for every wrong value."""

from ipaddress import ip_network
from pathlib import Path
from secrets import token_hex, token_urlsafe

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
    "AUTH_SECRET_PREVIOUS": None,
    "MAX_TOKEN_SECONDS": 0,
    "WALLET_URL": "sandbox:",
    "WALLET_API_TOKEN": None,
    "WALLET_VERIFY_HOLDS": False,
    "WALLET_TIMEOUT_SECONDS": 5,
    "WALLET_MAX_ATTEMPTS": 10,
    "WALLET_RETRY_BASE_SECONDS": 0.5,
    "WALLET_RETRY_MAX_SECONDS": 300,
    "SETTLE_DELAY_SECONDS": 0,
    "WALLET_KEY_FORMAT": "plain",
    "WEBHOOK_HOSTS": (),
    "COMMAND_SECONDS": 5,
    "RETENTION_DAYS": 0,
    "TRUSTED_PROXIES": (),
    "SOCKETS_PER_ADDRESS": 200,
    "REQUESTS_PER_ADDRESS": 0,
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
OURS: dict[str, object] = {
    "ALLOW_PLAIN_HTTP": False,
    "METRICS_TOKEN": None,
    "TRACES_URL": None,
    "VAPID_PRIVATE_KEY": None,
    "VAPID_SUBJECT": None,
}
"""Variables that the contract leaves to us."""
KEYS = ("AUTH_SECRET", "WALLET_QUEUE_SECRET")
SECRETS = (*KEYS, "AUTH_SECRET_PREVIOUS", "WALLET_API_TOKEN", "METRICS_TOKEN", "DATABASE_URL", "REDIS_URL")
LONG_KEY = "k" * 32
URLS = {
    "DATABASE_URL": "postgresql://queue:word@db.example/queue",
    "REDIS_URL": "redis://:word@cache.example",
}
RANDOM_KEYS = [f"{number}f3a9c07be1d24586{number}b7e02c9d48f6a135" for number in range(4)]
PRODUCTION = {
    "ENVIRONMENT": "production",
    "AUTH_SECRET": RANDOM_KEYS[0],
    "WALLET_QUEUE_SECRET": RANDOM_KEYS[1],
    "WALLET_API_TOKEN": RANDOM_KEYS[2],
    "WALLET_URL": "https://wallet.example",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the service from the environment of the test run."""
    files = (f"{secret}_FILE" for secret in (*SECRETS, "VAPID_PRIVATE_KEY"))
    for name in (*DEFAULTS, *OURS, *KEYS, *files):
        monkeypatch.delenv(name, raising=False)


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """The line with which an environment is refused."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as refused:
        read_settings()
    line = str(refused.value)
    assert line
    assert "\n" not in line
    return line


@pytest.mark.parametrize(("name", "default"), [*DEFAULTS.items(), *OURS.items()])
def test_every_default_is_the_contracts(name: str, default: object) -> None:
    assert getattr(read_settings(), name.lower()) == default


def test_the_settings_are_the_contracts_variables_and_the_few_of_our_own() -> None:
    assert {name.upper() for name in Settings.model_fields} == {*DEFAULTS, *OURS, *KEYS}


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
        ("HOST", "::", "::"),
        ("HOST", "queue.example", "queue.example"),
        ("DATABASE_URL", "sqlite:////var/lib/my queue/queue.db", "sqlite:////var/lib/my queue/queue.db"),
        ("DATABASE_URL", "postgresql://db.example/q?sslmode=require", "postgresql://db.example/q?sslmode=require"),
        ("REDIS_URL", "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("AUTH_JWKS_URL", "https://site.example/keys?p=queue", "https://site.example/keys?p=queue"),
        ("WALLET_KEY_FORMAT", "uuid", "uuid"),
        ("RETENTION_DAYS", "90", 90),
        ("COMMAND_SECONDS", "2.5", 2.5),
        ("SOCKETS_PER_ADDRESS", "0", 0),
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
        ("WEBHOOK_HOSTS", "Hooks.example,10.0.0.7", ("hooks.example", "10.0.0.7")),
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
    "HOST": ["not a host", "http://queue.example", "[::1]", "-queue", "queue..example", "q" * 254],
    "PORT": ["abc", "-1", "65536", "80.5"],
    "ENVIRONMENT": ["staging"],
    "DATABASE_URL": [
        "mysql://db.example/queue",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///queue.db?mode=memory",
        "queue.db",
        "postgresql://db.example:abc/queue",
        "postgresql://db.example:99999/queue",
        "postgresql://db.example:0/queue",
        "postgresql://db .example/queue",
        "postgresql://db.example/queue ",
    ],
    "REDIS_URL": [
        "cache.example:6379",
        "http://cache.example",
        "redis://",
        "redis://cache.example:abc",
        "redis://cache.example:70000",
        "redis://cache .example",
        "redis://[::1",
        "redis://cache.example/queue",
    ],
    "AUTH_SECRET_PREVIOUS": ["short"],
    "MAX_TOKEN_SECONDS": ["-1", "soon"],
    "WALLET_API_TOKEN": ["schlüssel", "two words", "line\nbreak"],
    "WALLET_KEY_FORMAT": ["base64"],
    "ALLOW_PLAIN_HTTP": ["perhaps"],
    "WEBHOOK_HOSTS": ["https://hooks.example", "hooks.example/path", "hooks.example:443", "*"],
    "COMMAND_SECONDS": ["0", "-1", "nan", "301"],
    "RETENTION_DAYS": ["-1", "1.5", "a year"],
    "TRUSTED_PROXIES": ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "*"],
    "SOCKETS_PER_ADDRESS": ["-1", "x"],
    "REQUESTS_PER_ADDRESS": ["-1", "0.5"],
    "WEB_CONCURRENCY": ["0", "-2", "many"],
    "AUTH_SECRET": ["k" * 31],
    "AUTH_JWKS_URL": [
        "site.example/keys",
        "file:///keys",
        "https://",
        "https://site.example:abc/keys",
        "https://site.example/the keys",
        "https://site.example/keys#first",
        "https://user:word@site.example/keys",
        "https://[::1/keys",
    ],
    "WALLET_URL": [
        "wallet.example",
        "ftp://wallet.example",
        "sandbox",
        "https://",
        "https://wallet.example:port",
        "https://wallet.example:0",
        "https://wal let.example",
        "https://wallet.example/?version=1",
        "https://wallet.example/#top",
        "https://user:word@wallet.example",
    ],
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


@pytest.mark.parametrize("name", SECRETS)
class TestSecretsInFiles:
    def test_a_secret_is_read_from_the_file_that_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
    ) -> None:
        value = URLS.get(name, RANDOM_KEYS[0])
        (tmp_path / "secret").write_text(f"{value}\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
        assert getattr(read_settings(), name.lower()) == value

    @pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff" * 40, b"k" * 70_000])
    def test_a_file_that_holds_no_secret_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: bytes | None
    ) -> None:
        if content is not None:
            (tmp_path / "secret").write_bytes(content)
        line = refusal(monkeypatch, **{f"{name}_FILE": str(tmp_path / "secret")})
        assert line.startswith(f"{name}_FILE: ")

    def test_a_secret_is_given_in_one_of_the_two_ways_only(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
    ) -> None:
        value = URLS.get(name, RANDOM_KEYS[0])
        (tmp_path / "secret").write_text(value)
        line = refusal(monkeypatch, **{name: value, f"{name}_FILE": str(tmp_path / "secret")})
        assert line == f"{name}_FILE: {name} is set as well; set one of the two"


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
            ("WALLET_URL", "http://wallet.example"),
            ("WALLET_API_TOKEN", None),
            ("WALLET_API_TOKEN", Settings.model_fields["auth_secret"].default),
            ("AUTH_SECRET", Settings.model_fields["wallet_queue_secret"].default),
            ("AUTH_SECRET", "k" * 64),
            ("AUTH_SECRET", "secret12" * 8),
            ("AUTH_SECRET", "abcdefghijklmnopqrstuvwxyz0123456789"),
            ("AUTH_SECRET", "correct-horse-battery-staple-and-some-more"),
            ("AUTH_SECRET", "a-string-secret-at-least-256-bits-long"),
            ("AUTH_SECRET", "MyCompanyChangeMe2026ChangeMeAgain!"),
            ("AUTH_SECRET", RANDOM_KEYS[1]),
            ("AUTH_SECRET_PREVIOUS", Settings.model_fields["auth_secret"].default),
            ("AUTH_SECRET_PREVIOUS", RANDOM_KEYS[1]),
            ("WALLET_QUEUE_SECRET", RANDOM_KEYS[2]),
            ("AUTH_JWKS_URL", "http://site.example/keys"),
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

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("WALLET_URL", "http://127.0.0.1:9000"),
            ("WALLET_URL", "http://localhost:9000"),
            ("AUTH_JWKS_URL", "http://[::1]:9000/keys"),
            ("AUTH_SECRET_PREVIOUS", RANDOM_KEYS[0]),
        ],
    )
    def test_a_value_that_nobody_else_can_read_is_not_insecure(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        self.settle(monkeypatch, **{name: value})
        assert getattr(read_settings(), name.lower()) == value

    def test_plain_http_is_accepted_where_the_setting_allows_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settle(monkeypatch, WALLET_URL="http://wallet.internal", ALLOW_PLAIN_HTTP="true")
        assert read_settings().wallet_url == "http://wallet.internal"

    def test_random_keys_of_every_usual_kind_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for make in (token_hex, token_urlsafe):
            for _ in range(200):
                self.settle(monkeypatch, AUTH_SECRET=make(32), WALLET_QUEUE_SECRET=make(24), WALLET_API_TOKEN=make(32))
                read_settings()


@pytest.mark.parametrize(("host", "public"), [("127.0.0.1", False), ("localhost", False), ("::1", False), ("::", True)])
def test_development_settings_know_whether_others_can_reach_them(
    monkeypatch: pytest.MonkeyPatch, host: str, public: bool
) -> None:
    monkeypatch.setenv("HOST", host)
    assert read_settings().is_public_development is public
