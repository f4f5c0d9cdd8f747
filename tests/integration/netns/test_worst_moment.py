"""Applications that close kept connections at the worst moment, all three of them, after three answers on each.

A sidecar cannot know that a connection is about to close (semantics S23). GETs never pay for that. A POST may: once a
byte of it was written it is not sent again (decision D22), and its caller is told so. Nothing is ever done twice.
"""

from __future__ import annotations

import time

import pytest

from tests.kit.street import Story, Street

pytestmark = pytest.mark.alone  # its bounds are of time-outs, and two more meshes beside it would move them


def play(street: Street, *mood: str, seconds: float = 2.5) -> Story:
    """Everybody asks while all applications are in this mood."""
    street.open(*mood)
    with street.calls(60.0) as calls:
        time.sleep(seconds)
        return calls.stop()


def test_closing_after_an_answer_without_a_word(street: Street) -> None:
    """The close is there before the next request: the pool sees it, and nobody notices anything."""
    story = play(street, "quiet").sound()
    assert story.share_ok() >= 0.99, story.failures
    assert all(each.post for each in story.failed), story.failures


@pytest.mark.parametrize("mood", ["unread", "read"])
def test_closing_when_the_next_request_arrives(street: Street, mood: str) -> None:
    story = play(street, mood).sound()
    assert all(each.post for each in story.failed), story.failures  # no GET is lost
    assert {each.status for each in story.failed} <= {503}
    assert not [each for each in story.failed if story.done[each.nonce]]  # told to have failed, and not done
    assert not story.slower(1.0), story


def test_a_reset_in_the_middle_of_an_answer(street: Street) -> None:
    """It has been done and its answer has begun: nobody can mend that. The caller sees that it is not whole."""
    story = play(street, "torn").sound(torn=True)
    assert {each.status for each in story.failed} <= {0, 502, 503}, story.failures
    assert all(story.done[each.nonce] == 1 for each in story.asked if each.post and each.status in (0, 200))
    assert not story.slower(1.0), story
