"""Signatures hold against the specification's own reference libraries, in Python and in JavaScript."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks import signing
from tests.support import node_tools

BODY = '{"type":"queue.item.created","data":{"title":"Für Elise"}}'.encode()


def test_the_reference_library_accepts_them_and_notices_a_changed_byte() -> None:
    secret = signing.new_secret()
    headers = signing.headers("evt_1", datetime.now(UTC), BODY, [secret])
    assert Webhook(secret).verify(BODY.decode(), headers)["type"] == "queue.item.created"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY.decode().replace("Für", "Fur"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_secret()).verify(BODY.decode(), headers)


def test_while_a_secret_is_changed_both_are_accepted() -> None:
    old, new = signing.new_secret(), signing.new_secret()
    headers = signing.headers("evt_1", datetime.now(UTC), BODY, [new, old])
    for secret in (old, new):
        Webhook(secret).verify(BODY.decode(), headers)


def test_the_javascript_reference_library_accepts_them(node: Path, npm: Path, tmp_path: Path) -> None:
    folder = node_tools.installed(npm, ["standardwebhooks@1.1.1"])
    secret = signing.new_secret()
    headers = signing.headers("evt_1", datetime.now(UTC), BODY, [signing.new_secret(), secret])
    script = tmp_path / "verify.cjs"
    script.write_text(
        f"const {{ Webhook }} = require({json.dumps(str(folder / 'node_modules' / 'standardwebhooks'))});"
        "const [secret, body, headers] = JSON.parse(process.argv[2]);"
        "process.stdout.write(new Webhook(secret).verify(body, headers).type);"
    )
    arguments = json.dumps([secret, BODY.decode(), headers])
    done = subprocess.run([node, script, arguments], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "queue.item.created"), done.stderr
