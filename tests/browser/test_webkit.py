"""Every page in WebKit, the engine of Safari, driven by its inspector's protocol: it shows its content, and no script
fails. The program is WebKitGTK's own small browser, on a screen in memory."""

import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.browsing import Room, every_page
from tests.support.environment import WebKit
from tests.support.ports import free_port
from tests.support.server import Json

START_SECONDS = 60
ANSWER_SECONDS = 60
LOOK_SECONDS = 0.1

NO_ERRORS = ("Unrecognized Content-Security-Policy directive", "Fetch API cannot load")
"""WebKit's lines about a directive that it does not know, and about a request of a page that is left."""

LOOKS = "JSON.stringify([Boolean(window.isOld), document.body?.innerText ?? ''])"


class Window:
    """The browser's only window, whose page the inspector controls."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        self._target: str = self._next("Target.targetCreated")["targetInfo"]["targetId"]
        self.send("Console.enable")

    def _next(self, method: str) -> Json:
        """The parameters of the next event of this name."""
        while True:
            event: Json = json.loads(self._socket.recv(timeout=ANSWER_SECONDS))
            if event.get("method") == method:
                params: Json = event["params"]
                return params

    def send(self, method: str, **params: Any) -> Json:
        """Send a command to the page and return its result; keeps the errors that it logs meanwhile."""
        number = next(self._numbers)
        message = json.dumps({"id": number, "method": method, "params": params})
        wrapped = {"targetId": self._target, "message": message}
        self._socket.send(json.dumps({"id": number, "method": "Target.sendMessageToTarget", "params": wrapped}))
        while True:
            answer: Json = json.loads(self._next("Target.dispatchMessageFromTarget")["message"])
            if answer.get("method") == "Console.messageAdded":
                self._keep(answer["params"]["message"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: Json = answer["result"]
                return result

    def _keep(self, message: Json) -> None:
        """Keep an error of a script; other messages are ignored."""
        text: str = message["text"]
        is_error = message["level"] == "error" and message["source"] != "network"
        if is_error and not text.startswith(NO_ERRORS):
            self.errors.append(text)

    def evaluate(self, expression: str) -> Any:
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def shows(self, url: str, words: str) -> None:
        self.evaluate(f"window.isOld = true; location.href = {json.dumps(url)};")
        is_old, text = True, ""
        deadline = time.monotonic() + ANSWER_SECONDS
        while is_old or words not in text:
            assert time.monotonic() < deadline, (url, is_old, text)
            time.sleep(LOOK_SECONDS)
            is_old, text = json.loads(self.evaluate(LOOKS))


@contextmanager
def screen(program: Path) -> Iterator[str]:
    """The name of a display in memory."""
    readable, writable = os.pipe()
    command = [str(program), "-displayfd", str(writable), "-screen", "0", "1280x1000x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writable], stderr=subprocess.DEVNULL) as server:
        os.close(writable)
        try:
            with os.fdopen(readable) as numbers:
                yield f":{numbers.readline().strip()}"
        finally:
            server.terminate()


def socket_of(port: int, url: str) -> str:
    """The inspector's WebSocket for the page at this address; waits until it exists."""
    deadline = time.monotonic() + START_SECONDS
    listed = ""
    while time.monotonic() < deadline:
        try:
            listed = httpx2.get(f"http://127.0.0.1:{port}/", timeout=START_SECONDS, trust_env=False).text
        except httpx2.TransportError:
            listed = "no inspector"
        if url in listed and (found := re.search(r"/socket/\d+/\d+/WebPage", listed)):
            return f"ws://127.0.0.1:{port}{found[0]}"
        time.sleep(LOOK_SECONDS)
    raise AssertionError(f"WebKit did not start: {listed}")


@pytest.fixture
def webkit(room: Room, webkit_programs: WebKit, tmp_path: Path) -> Iterator[Window]:
    # Begun at the service's own address: another site's page would be another process, which the inspector calls a
    # target of its own.
    port, url = free_port(), f"{room.server.url}/healthz"
    command = [str(webkit_programs.browser), "--enable-developer-extras=true", url]
    with screen(webkit_programs.screen) as display:
        environment = {
            **os.environ,
            "DISPLAY": display,
            "GDK_BACKEND": "x11",
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path),
            "WEBKIT_INSPECTOR_HTTP_SERVER": f"127.0.0.1:{port}",
        }
        log = tmp_path / "log"
        with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as run:
            try:
                with connect(socket_of(port, url), max_size=None, proxy=None) as socket:
                    yield Window(socket)
            finally:
                run.terminate()


def test_every_page_shows_its_content_in_webkit_and_no_script_fails(room: Room, webkit: Window) -> None:
    for address, words in every_page(room):
        webkit.shows(address, words)
    assert webkit.errors == []
    webkit.evaluate("setTimeout(() => nobodyKnowsThis())")
    webkit.shows(room.server.url, "Everybody sees their place")
    assert ["nobodyKnowsThis" in error for error in webkit.errors] == [True]
