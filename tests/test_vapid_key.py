"""The settings of push notifications, and the command that makes a key."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.settings import read_settings, vapid_key
from tests.support.command_line import run
from tests.test_settings import bare_environment as bare_environment
from tests.test_settings import refusal

KEY = ec.derive_private_key(2026, ec.SECP256R1())
TEXT = vapid_key.private_text(KEY)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
OLD_PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


@pytest.mark.parametrize("text", [TEXT, f"{TEXT}=", PEM, OLD_PEM], ids=["plain", "padded", "PKCS 8", "SEC 1"])
@pytest.mark.parametrize("subject", ["mailto:ops@site.example", "https://site.example/contact"])
def test_a_key_is_read_in_every_form(monkeypatch: pytest.MonkeyPatch, text: str, subject: str) -> None:
    monkeypatch.setenv("VAPID_PRIVATE_KEY", text)
    monkeypatch.setenv("VAPID_SUBJECT", subject)
    settings = read_settings()
    assert settings.vapid_private_key is not None
    key = vapid_key.read_private_key(settings.vapid_private_key)
    assert vapid_key.public_text(key) == vapid_key.public_text(KEY)
    assert TEXT not in repr(settings)


def test_a_key_is_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM)
    monkeypatch.setenv("VAPID_PRIVATE_KEY_FILE", str(tmp_path / "key.pem"))
    monkeypatch.setenv("VAPID_SUBJECT", "mailto:ops@site.example")
    assert read_settings().vapid_private_key == PEM.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "ä",
        TEXT[:-2],
        f"{TEXT}AA",
        "A" * 43,
        "_" * 43,
        PEM.replace("BEGIN PRIVATE", "BEGIN SECRET"),
        PEM[:80],
        ec.generate_private_key(ec.SECP384R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
        KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")).decode(),
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    ],
    ids=lambda text: text[:16].strip(),
)
def test_an_invalid_key_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    line = refusal(monkeypatch, VAPID_PRIVATE_KEY=text, VAPID_SUBJECT="mailto:ops@site.example")
    assert line.startswith("VAPID_PRIVATE_KEY: must be a P-256 private key")
    assert text.strip() not in line


@pytest.mark.parametrize(
    "subject",
    ["ops@site.example", "mailto:", "mailto:ops", "mailto:a b@site.example", "http://site.example", "tel:1"],
)
def test_a_subject_is_an_address_by_which_somebody_is_reached(monkeypatch: pytest.MonkeyPatch, subject: str) -> None:
    line = refusal(monkeypatch, VAPID_PRIVATE_KEY=TEXT, VAPID_SUBJECT=subject)
    assert line.startswith("VAPID_SUBJECT: ")


@pytest.mark.parametrize("given", [{"VAPID_PRIVATE_KEY": TEXT}, {"VAPID_SUBJECT": "mailto:ops@site.example"}])
def test_one_without_the_other_is_refused(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    assert refusal(monkeypatch, **given) == "VAPID_PRIVATE_KEY and VAPID_SUBJECT are set together or not at all"


def test_the_command_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("vapid-key", "sqlite:///nowhere.db")
    assert made.exit_code == 0, made.output
    monkeypatch.setenv("VAPID_PRIVATE_KEY", made.stdout.strip())
    monkeypatch.setenv("VAPID_SUBJECT", "mailto:ops@site.example")
    key = vapid_key.read_private_key(str(read_settings().vapid_private_key))
    assert made.stderr == f"Public key: {vapid_key.public_text(key)}\n"
    assert run("vapid-key", "sqlite:///nowhere.db").stdout != made.stdout
