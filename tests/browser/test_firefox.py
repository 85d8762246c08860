"""Every page in Firefox, driven over WebDriver BiDi: it shows its content, and no script fails."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.browsing import Room, every_page
from tests.support.server import Json

START_SECONDS = 60
ANSWER_SECONDS = 60

SHOWS = """words => new Promise((resolve) => {
  const look = () => document.body?.innerText.includes(words) ? resolve(document.body.innerText) : setTimeout(look, 50);
  look();
  setTimeout(() => resolve(document.body.innerText), 20000);
})"""


class Firefox:
    """One window of a headless Firefox."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded"])
        self._window = self.send("browsingContext.getTree")["contexts"][0]["context"]

    def send(self, method: str, **params: Any) -> Json:
        """Send a command and return its result; keeps the errors that pages log meanwhile."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer: Json = json.loads(self._socket.recv(timeout=ANSWER_SECONDS))
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] == "error":
                self.errors.append(answer["params"]["text"])
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                result: Json = answer["result"]
                return result

    def shows(self, url: str, words: str) -> None:
        self.send("browsingContext.navigate", context=self._window, url=url, wait="complete")
        found = self.send(
            "script.callFunction",
            functionDeclaration=SHOWS,
            arguments=[{"type": "string", "value": words}],
            target={"context": self._window},
            awaitPromise=True,
        )
        assert words in found["result"]["value"], found


@pytest.fixture(scope="module")
def firefox(firefox_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    profile = tmp_path_factory.mktemp("firefox")
    log = profile / "log"
    command = [
        str(firefox_program),
        "--headless",
        "--remote-debugging-port",
        "0",
        "--profile",
        str(profile),
        "--no-remote",
    ]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as program:
        try:
            with connect(_address(log, program), max_size=None, proxy=None) as socket:
                yield Firefox(socket)
        finally:
            program.terminate()
            program.wait(20)


def _address(log: Path, program: "subprocess.Popen[bytes]") -> str:
    """The address of Firefox's remote protocol, from its output."""
    for _ in range(START_SECONDS * 10):
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text()):
            return f"{found[1]}/session"
        try:
            program.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"Firefox did not start: {log.read_text()}")


def test_every_page_shows_its_content_in_firefox_and_no_script_fails(room: Room, firefox: Firefox) -> None:
    for address, words in every_page(room):
        firefox.shows(address, words)
    assert firefox.errors == []
