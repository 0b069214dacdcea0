"""Keys of random arguments: equal calls share one, unequal calls never do, in both levels."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf._core.canonical import canonical
from isp_perf._core.field_text import field_text
from isp_perf._core.keys import parse_template
from isp_perf.cache import CacheManager

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.timedeltas(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.frozensets(SCALARS, max_size=3),
    ),
    max_leaves=6,
)
CLOSE = st.sampled_from(
    [
        0,
        1,
        -1,
        True,
        False,
        0.0,
        -0.0,
        1.0,
        0.1,
        Decimal(0),
        Decimal("0.1"),
        Decimal("1.0"),
        "",
        "0",
        "1",
        "True",
        None,
        "None",
        b"",
        b"1",
        (),
        [],
        {},
        frozenset(),
        (1,),
        [1],
        (1, ""),
        ("1",),
        "a:b",
        "a%3Ab",
        "%n1",
        "%z",
        2**64,
        2.0**64,
        date(2026, 1, 1),
        datetime(2026, 1, 1, tzinfo=UTC),
        timedelta(0),
        UUID(int=1),
        str(UUID(int=1)),
    ]
)
PAIRS = st.tuples(st.one_of(CLOSE, VALUES), st.one_of(CLOSE, VALUES))


@settings(max_examples=400, deadline=None)
@given(PAIRS)
def test_untyped_bytes_are_equal_exactly_if_the_values_are(pair):
    """With typed=False, one relation: Python's equality."""
    one, other = pair
    assert (canonical(one, typed=False) == canonical(other, typed=False)) == (one == other)


@settings(max_examples=400, deadline=None)
@given(PAIRS)
def test_field_texts_are_equal_exactly_if_the_values_are(pair):
    """In a template, whatever the annotation, texts follow Python's equality."""
    one, other = pair
    for bare in (None, str, int, float, UUID):
        texts = [field_text(value, bare=bare, typed=False, secret=b"k") for value in pair]
        assert (texts[0] == texts[1]) == (one == other)


@settings(max_examples=400, deadline=None)
@given(PAIRS)
def test_typed_bytes_also_tell_types_apart(pair):
    """With typed=True, values of different types differ, and equal values of one scalar type do not."""
    one, other = pair
    same = canonical(one, typed=True) == canonical(other, typed=True)
    if one != other or type(one) is not type(other):
        assert not same
    elif not isinstance(one, tuple | list | dict | frozenset):
        assert same


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["{a}:{b}", "{a}{b}", "{a}-{b}", "x{a}y{b}z", "{b}/{a}", "{a}.{b}"]),
    st.tuples(st.text(max_size=5), st.text(max_size=5)),
    st.tuples(st.text(max_size=5), st.text(max_size=5)),
)
def test_texts_never_move_over_a_border(template, one, other):
    """Two different pairs of texts never give the same key, whatever stands between the fields."""
    parsed = parse_template(template, ["a", "b"])

    def key(pair):
        bound = dict(zip("ab", pair, strict=True))
        return parsed.join(
            [
                field_text(bound[field.name], bare=None, typed=False, secret=b"k", escaped=parsed.escaped)
                for field in parsed.fields
            ]
        )

    assert (key(one) == key(other)) == (one == other)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(CLOSE, VALUES), min_size=2, max_size=6))
def test_local_entries_and_wire_keys_are_one_relation(values):
    """Two calls share a local entry exactly if they share a logical key."""
    cache = CacheManager()

    @cache.cached("loose:{x}")
    def loose(x):
        return object()

    @cache.cached("strict:{hash}")
    def strict(x):
        return object()

    @cache.cached("annotated:{hash}")
    def annotated(x: int):
        return object()

    for function in (loose, strict, annotated):
        results = [(function.key(value), function(value)) for value in values]
        for key, result in results:
            for other_key, other_result in results:
                assert (key == other_key) == (result is other_result)


def test_keys_are_the_same_in_every_process():
    """Keys do not depend on the process or its hash seed."""
    program = (
        "from isp_perf.cache import CacheManager\n"
        "import datetime, decimal\n"
        "f = CacheManager().cached('k:{hash}')(lambda x: x)\n"
        "print(f.key(({'a', 'b', 'c'}, {'x': 1.5, 'y': None}, decimal.Decimal('1.5'), datetime.date(2026, 1, 1))))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().startswith("k:")
