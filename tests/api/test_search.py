"""An administrator's search over all rooms, by any id or amount."""

from urllib.parse import urlencode

import pytest

from tests.support.server import WHOLE_FIELDS, Api, Server, fresh, ok, problem

PATH = "/v1/admin/items"


async def found(api: Api, words: str, limit: int = 20) -> list[str]:
    answer = ok(await api.get(f"{PATH}?{urlencode({'q': words, 'limit': limit})}", api.server.admin))
    assert set(answer) == {"items", "more", "lookedBackTo", "limit"}
    return [item["itemId"] for item in answer["items"]]


async def test_an_item_is_found_by_each_of_its_names_and_by_the_end_of_its_references(
    api: Api, performer_id: str
) -> None:
    tokens = int.from_bytes(fresh("").encode()[-6:])
    item = await api.intake(performer_id, tokens=tokens, sourceEventId=fresh("event"))
    await api.intake(fresh("star"))
    for name in ("itemId", "escrowTransactionId", "userId", "sourceEventId"):
        assert await found(api, item[name]) == [item["itemId"]], name
    for words in (str(tokens), f" {item['userId']} ", f"…{item['itemId'][-8:]}", item["escrowTransactionId"][-8:]):
        assert await found(api, words) == [item["itemId"]], words
    assert await found(api, fresh("nobody")) == []
    # Too short an end of a reference says nothing.
    assert await found(api, f"…{item['itemId'][-4:]}") == []
    assert await found(api, "%%%%%%%%") == []


async def test_a_users_items_are_found_newest_first_with_their_place_now(api: Api, performer_id: str) -> None:
    user = fresh("ada")
    items = [await api.intake(performer_id, userId=user) for _ in range(3)]
    ended = await api.command("abandon", items[0])
    answer = ok(await api.get(f"{PATH}?q={user}&limit=2", api.server.admin))
    assert [item["itemId"] for item in answer["items"]] == [items[2]["itemId"], items[1]["itemId"]]
    assert [item["position"] for item in answer["items"]] == [2, 1]
    assert all(set(item) == WHOLE_FIELDS for item in answer["items"])
    assert answer["more"] is True
    (shown,) = ok(await api.get(f"{PATH}?q={ended['itemId']}", api.server.admin))["items"]
    # The wallet may have confirmed its refund since.
    assert shown["status"] in (ended["status"], "refunded")
    assert shown["position"] == 0


@pytest.mark.parametrize("query", ["", "?q=", "?q=%20", "?q=%00", f"?q={'x' * 256}", "?q=a&limit=101"])
async def test_an_invalid_search_is_refused(api: Api, server: Server, query: str) -> None:
    problem(await api.get(f"{PATH}{query}", server.admin), 422, "VALIDATION_ERROR")
