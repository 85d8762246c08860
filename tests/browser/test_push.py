"""Push notifications in a real browser. No push service is reachable, so `PushManager.subscribe` is replaced;
permission, worker, notifications and clicks are the browser's own."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import CDPSession, Page, expect

from app.settings import vapid_key
from app.store.engines import open_engines
from app.store.push_tables import PUSH_SUBSCRIPTIONS
from tests.support.browsing import HIDES, PHONE, Room, Windows, room_of, wait_for
from tests.support.server import Server, fresh, serving

KEY = vapid_key.new_private_key()
BROWSER = {
    "endpoint": "https://push.example/send/f1x2",
    "keys": {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    },
}
SUBSCRIBES = f"""
window.pushes = {{ asked: [], ended: 0, current: null }};
PushManager.prototype.getSubscription = async () => window.pushes.current;
PushManager.prototype.subscribe = async ({{ applicationServerKey, userVisibleOnly }}) => {{
  const text = atob(applicationServerKey.replace(/-/g, "+").replace(/_/g, "/") + "=");
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt());
  window.pushes.asked.push([applicationServerKey, userVisibleOnly]);
  window.pushes.current = {{
    options: {{ applicationServerKey: bytes.buffer }},
    toJSON: () => ({{ ...{json.dumps(BROWSER)}, expirationTime: null }}),
    async unsubscribe() {{
      window.pushes.ended += 1;
      window.pushes.current = null;
      return true;
    }},
  }};
  return window.pushes.current;
}};
"""
"""In place of a push service: writes down in `pushes` how the page subscribes."""
SHOWN = """async () => {
  const registration = await navigator.serviceWorker.ready;
  const all = await registration.getNotifications();
  return all.map(({ title, body, tag, data }) => ({ title, body, tag, path: data.path }));
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    key = vapid_key.private_text(KEY)
    folder = tmp_path_factory.mktemp("push")
    with serving(folder, vapid_private_key=key, vapid_subject="mailto:ops@queue.example") as running:
        yield running


@pytest.fixture
def room(server: Server) -> Iterator[Room]:
    with room_of(server) as room:
        yield room


def watching(windows: Windows, room: Room, user_id: str, *, permission: bool = True) -> Page:
    page = windows.blank(size=PHONE)
    if permission:
        page.context.grant_permissions(["notifications"], origin=room.server.url)
    page.add_init_script(SUBSCRIBES)
    page.goto(room.watch_url(user_id))
    page.locator("html[data-kept]").wait_for()
    return page


def stored(room: Room, user_id: str) -> list[str]:
    """The names of a user's subscriptions in the service."""
    engines = open_engines(room.server.settings.database_url)
    try:
        with engines.reader.connect() as connection:
            of_user = PUSH_SUBSCRIPTIONS.select().where(PUSH_SUBSCRIPTIONS.c.user_id == user_id)
            return [row.name for row in connection.execute(of_user)]
    finally:
        engines.dispose()


class Worker:
    """A page's service worker, controlled by the browser's developer tools."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._tools: CDPSession = page.context.new_cdp_session(page)
        self._registrations: list[Any] = []
        self._tools.on("ServiceWorker.workerRegistrationUpdated", self._updated)
        self._tools.send("ServiceWorker.enable")
        wait_for(page, lambda: bool(self._registrations))

    def _updated(self, event: Any) -> None:
        self._registrations += event["registrations"]

    def push(self, **content: object) -> None:
        """Deliver a message to the worker, as from the browser's push service."""
        registration = self._registrations[-1]
        self._tools.send(
            "ServiceWorker.deliverPushMessage",
            {
                "origin": self._page.url.split("/watch/")[0],
                "registrationId": registration["registrationId"],
                "data": json.dumps(content),
            },
        )


def test_permission_is_asked_for_on_a_click_only_and_the_subscription_is_stored_until_it_is_switched_off(
    room: Room, windows: Windows
) -> None:
    ada = fresh("ada")
    room.request()
    room.request(userId=ada)
    page = watching(windows, room, ada)
    assert page.evaluate("pushes.asked") == []
    assert stored(room, ada) == []
    page.get_by_role("button", name="Notify me").click()
    expect(
        page.get_by_text("We’ll tell you when it’s nearly your turn, also when this page is closed.")
    ).to_be_visible()
    assert page.evaluate("pushes.asked") == [[vapid_key.public_text(KEY), True]]
    assert len(stored(room, ada)) == 1
    page.get_by_role("button", name="Notifications on").click()
    wait_for(page, lambda: page.evaluate("pushes.ended") == 1)
    assert stored(room, ada) == []


def test_a_later_visit_asks_for_nothing_and_another_viewer_takes_the_subscription_over(
    room: Room, windows: Windows
) -> None:
    ada, eve = fresh("ada"), fresh("eve")
    for user_id in (ada, eve):
        room.request(userId=user_id)
    page = watching(windows, room, ada)
    page.get_by_role("button", name="Notify me").click()
    wait_for(page, lambda: len(stored(room, ada)) == 1)
    page.reload()
    expect(page.get_by_role("button", name="Notifications on")).to_be_visible()
    page.locator("html[data-kept]").wait_for()
    assert page.evaluate("pushes.asked") == []
    page.goto("about:blank")
    page.goto(room.watch_url(eve))
    wait_for(page, lambda: len(stored(room, eve)) == 1)
    assert stored(room, ada) == []
    opens = "token => { location.hash = `token=${token}`; }"
    page.evaluate(opens, room.server.viewer(ada))
    wait_for(page, lambda: len(stored(room, ada)) == 1)
    assert stored(room, eve) == []
    assert page.evaluate("[pushes.asked.length, pushes.ended]") == [1, 0]
    # The service has another key by now.
    page.evaluate("() => { pushes.current.options.applicationServerKey = new Uint8Array(65).buffer; }")
    page.evaluate(opens, room.server.viewer(eve))
    wait_for(page, lambda: len(stored(room, eve)) == 1)
    assert page.evaluate("[pushes.asked.length, pushes.ended]") == [2, 1]


def test_without_push_the_page_promises_only_what_it_can_do(room: Room, windows: Windows) -> None:
    ada = fresh("ada")
    room.request(userId=ada)
    page = watching(windows, room, ada)
    page.evaluate(
        "() => { PushManager.prototype.subscribe = () => Promise.reject(new DOMException('no', 'AbortError')); }"
    )
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_text("as long as this page is open.")).to_be_visible()
    assert stored(room, ada) == []
    page.get_by_role("button", name="Notifications on").click()
    page.evaluate("() => { PushManager.prototype.subscribe = () => new Promise(() => {}); }")
    page.clock.install()
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_role("button", name="Notifications on")).to_be_visible()
    page.evaluate("document.getElementById('toasts').replaceChildren()")
    page.clock.fast_forward(8_000)
    expect(page.get_by_text("as long as this page is open.")).to_be_visible()
    blocked = watching(windows, room, ada, permission=False)
    blocked.evaluate("() => { Notification.requestPermission = async () => 'denied'; }")
    blocked.get_by_role("button", name="Notify me").click()
    expect(blocked.get_by_text("Your browser doesn’t allow notifications here.")).to_be_visible()
    phone = watching(windows, room, ada, permission=False)
    phone.evaluate("() => { delete window.Notification; navigator.standalone = false; }")
    phone.get_by_role("button", name="Notify me").click()
    expect(phone.get_by_text("An iPhone or iPad notifies only from a page on its home screen.")).to_be_visible()


def test_a_message_is_shown_and_a_click_on_it_leads_to_the_page(room: Room, windows: Windows) -> None:
    ada = fresh("ada")
    mine = room.request(userId=ada)
    page = watching(windows, room, ada)
    worker = Worker(page)
    message = {"title": "You’re next after “Jolene”, about 2:40", "body": "Sing a song", "tag": mine["itemId"]}
    elsewhere = {**message, "performerId": "zoe", "tag": "of-zoe", "moment": "next"}
    here = {**message, "performerId": room.performer, "moment": "next"}
    worker.push(**here)
    worker.push(**elsewhere)
    # This room's page is in front, where the same stands already; the other room's is not.
    wait_for(page, lambda: len(page.evaluate(SHOWN)) == 1)
    assert page.evaluate(SHOWN) == [
        {"title": message["title"], "body": "Sing a song", "tag": "of-zoe", "path": "/watch/zoe"}
    ]
    page.goto(f"{room.server.url}/watch/{fresh('other')}")
    page.locator("html[data-kept]").wait_for()
    worker = Worker(page)
    worker.push(**here)
    wait_for(page, lambda: len(page.evaluate(SHOWN)) == 2)
    worker.push(**{**here, "moment": "started", "title": "You’re on stage now"})
    wait_for(page, lambda: any(each["title"] == "You’re on stage now" for each in page.evaluate(SHOWN)))
    assert len(page.evaluate(SHOWN)) == 2


LEADS = """() => {
  self.led = [];
  self.clients.openWindow = async (path) => self.led.push(["opened", path]);
  WindowClient.prototype.focus = async function () {
    self.led.push(["focused", new URL(this.url).pathname]);
  };
}"""
"""Without a real click the browser moves no window: writes down in `led` what is asked of it."""
COVERED = """() => {
  Object.defineProperty(WindowClient.prototype, "visibilityState", { get: () => "hidden" });
}"""
"""Has a worker believe that its windows are covered: without a screen none is."""
CLICK = """async (tag) => {
  const [notification] = await self.registration.getNotifications({ tag });
  self.dispatchEvent(new NotificationEvent("notificationclick", { notification }));
}"""


def test_a_click_opens_the_page_of_a_room_that_nobody_has_open(room: Room, windows: Windows) -> None:
    page = watching(windows, room, fresh("ada"))
    tools = Worker(page)
    (worker,) = page.context.service_workers
    worker.evaluate(LEADS)
    tools.push(title="You’re on stage now", body="", tag="item", moment="started", performerId="zoe")
    wait_for(page, lambda: len(page.evaluate(SHOWN)) == 1)
    worker.evaluate(CLICK, "item")
    wait_for(page, lambda: worker.evaluate("led") == [["opened", "/watch/zoe"]])
    assert page.evaluate(SHOWN) == []


def test_a_covered_page_and_a_message_show_one_notification_and_a_click_brings_the_page_to_the_front(
    room: Room, windows: Windows
) -> None:
    ada = fresh("ada")
    items = [room.request(title="Jolene", durationSeconds=160), room.request(), room.request(userId=ada, title="Mine")]
    page = watching(windows, room, ada)
    page.get_by_role("button", name="Notify me").click()
    wait_for(page, lambda: len(stored(room, ada)) == 1)
    tools = Worker(page)
    (worker,) = page.context.service_workers
    worker.evaluate(LEADS)
    worker.evaluate(COVERED)
    page.evaluate(HIDES, True)
    room.command("abandon", items[1])
    room.start_next()
    wait_for(page, lambda: len(page.evaluate(SHOWN)) == 1)
    (shown,) = page.evaluate(SHOWN)
    assert shown["title"].startswith("You’re next after “Jolene”, about 2:")
    tag = items[2]["itemId"]
    assert (shown["body"], shown["tag"]) == ("Mine", tag)
    tools.push(title="The same, pushed", body="Mine", tag=tag, moment="next", performerId=room.performer)
    wait_for(page, lambda: [each["title"] for each in page.evaluate(SHOWN)] == ["The same, pushed"])
    worker.evaluate(CLICK, tag)
    wait_for(page, lambda: worker.evaluate("led") == [["focused", f"/watch/{room.performer}"]])
