"""How long push notices are valid, and a notice before its first attempt."""

from datetime import timedelta

import pytest

from app.domain.push import LONGEST_NEWS, Moment, Notice
from tests.support.builders import NOON


@pytest.mark.parametrize(("told", "minutes"), [(Moment.NEXT, 2), (Moment.STARTED, 2), (Moment.ENDED, 60)])
def test_news_of_the_stage_is_short_lived_and_news_of_tokens_lasts_an_hour(told: Moment, minutes: int) -> None:
    assert told.lasts == timedelta(minutes=minutes)
    assert told.lasts <= LONGEST_NEWS


def test_the_longest_news_is_that_of_tokens() -> None:
    assert Moment.ENDED.lasts == LONGEST_NEWS


def test_a_new_notice_has_not_been_tried_and_its_key_is_its_item_moment_and_subscription() -> None:
    notice = Notice(
        item_id="item-1", moment=Moment.NEXT, user_id="ada", name="phone", performer_id="star", expires_at=NOON
    )
    assert notice.attempts == 0
    assert notice.key == ("item-1", "next", "ada", "phone")
