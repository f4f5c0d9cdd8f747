"""A patch makes of the old value the new one, whatever the two are."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.deploy.kube.patch import apply, diff, pointer, steps

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab/~", max_size=3)
things = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab/~-", max_size=3), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"name": st.sampled_from("abcd")}, optional={"x": inner}), max_size=4)
    ),
    max_leaves=12,
)


@given(things, things)
def test_old_and_patch_make_new(old, new):
    before = copy.deepcopy(old)
    operations = diff(old, new)
    assert old == before
    made = apply(copy.deepcopy(old), operations)
    assert repr(made) == repr(new) or made == new
    assert not diff(made, new)


def test_what_is_the_same_needs_no_patch():
    assert diff({"a": [1, {"name": "b"}]}, {"a": [1, {"name": "b"}]}) == []


def test_a_thing_that_is_put_in_front_says_nothing_of_the_others():
    old, new = [{"name": "b", "x": 1}], [{"name": "a"}, {"name": "b", "x": 1}, {"name": "c"}]
    assert diff(old, new) == [
        {"op": "add", "path": "/0", "value": {"name": "a"}},
        {"op": "add", "path": "/2", "value": {"name": "c"}},
    ]


def test_true_is_not_one():
    assert diff({"a": True}, {"a": 1}) == [{"op": "replace", "path": "/a", "value": 1}]


@pytest.mark.parametrize("path", [(), ("a",), ("a/b", "~1", 3, "")])
def test_pointers_there_and_back(path):
    assert steps(pointer(path)) == [str(step) for step in path]
