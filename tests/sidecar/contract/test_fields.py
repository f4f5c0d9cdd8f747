"""A caller sees what its grant names, and never more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.contract.fields import BadField, filtered, merged, read_fields

ORDER = {"id": 1, "customer": {"name": "Ann", "iban": "x"}, "items": [{"id": 1, "cost": 2}, {"id": 3}],
         "tags": ["a", {"b": 1}]}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ([], {}),
        (["id"], {"id": 1}),
        (["customer"], {}),  # an object where a value was granted does not pass
        (["customer.name"], {"customer": {"name": "Ann"}}),
        (["customer.**"], {"customer": {"name": "Ann", "iban": "x"}}),
        (["items[].id"], {"items": [{"id": 1}, {"id": 3}]}),
        (["tags[]"], {"tags": ["a"]}),
        (["id.deeper"], {}),
        (["nowhere", "id"], {"id": 1}),
        (["**"], ORDER),
    ],
)
def test_what_is_left(fields: list[str], seen: Any) -> None:
    assert filtered(ORDER, read_fields(fields)) == seen


def test_lists_at_the_top_and_several_grants() -> None:
    tree = merged([read_fields(["[].id"]), read_fields(["[].items[].cost"])])
    assert filtered([ORDER, 5], tree) == [{"id": 1, "items": [{"cost": 2}, {}]}]
    assert filtered(ORDER, tree) == {}
    assert filtered(ORDER, merged([])) == {}


@pytest.mark.parametrize("path", ["", "a..b", "a.[0]", "a[1]", "**.a", "a*", ".", "a.**[]"])
def test_a_path_that_cannot_be_read(path: str) -> None:
    with pytest.raises(BadField):
        read_fields([path])


values = st.recursive(
    st.none() | st.booleans() | st.integers(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["id", "name", "new"]), inner, max_size=3), max_leaves=12,
)  # fmt: skip


@given(values)
def test_a_field_that_is_added_never_passes(value: Any) -> None:
    left = filtered(value, read_fields(["id", "name.id", "[].id", "name[].name"]))
    assert "new" not in str(left)
