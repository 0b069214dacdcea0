"""The estimate of a value's bytes."""

from sys import getsizeof

from isp_perf._core.weights import estimated_bytes


class Plain:
    """Attributes in a dict."""

    def __init__(self, value):
        self.value = value


class Slotted:
    """Attributes in slots, one of them never set."""

    __slots__ = ("absent", "value")

    def __init__(self, value):
        self.value = value


def test_what_a_value_holds_counts():
    """Containers and objects count with what they hold, each object once."""
    text = "x" * 10_000
    assert estimated_bytes(text) == getsizeof(text)
    for value in ([text], (text,), {text}, frozenset({text}), {"k": text}, {text: 1}, Plain(text), Slotted(text)):
        assert getsizeof(text) < estimated_bytes(value) < getsizeof(text) + 600
    assert estimated_bytes([text, text]) < 2 * getsizeof(text)
    endless = []
    endless.append(endless)
    assert estimated_bytes(endless) == getsizeof(endless)


def test_large_values_are_estimated_from_a_part():
    """A value of many parts is measured in bounded time, and comes out about right."""
    many = [("text" + str(number), float(number)) for number in range(20_000)]
    exact = getsizeof(many) + sum(getsizeof(part) + sum(map(getsizeof, part)) for part in many)
    assert 0.5 * exact < estimated_bytes(many) < 6 * exact
