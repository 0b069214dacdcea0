"""Whatever the interpreter accepts, rejects or equates for a function, its generated wrapper does too."""

import inspect
import keyword

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from isp_perf._runtime.specialize import specialize

NAMES = ["a", "b", "self", "function", "args", "values", "call", "factory", "KeyError", "e", "_", "__x", "é", "match"]
KINDS = list(inspect._ParameterKind)
assert not any(keyword.iskeyword(name) for name in NAMES)


@st.composite
def signatures(draw):
    """Build any legal signature over names that are likely to clash."""
    names = iter(draw(st.permutations(NAMES)))
    parameters, defaulted = [], False
    for kind in KINDS:
        most = 1 if kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} else 3
        for _ in range(draw(st.integers(0, most))):
            default = inspect.Parameter.empty
            if most > 1:
                keyword_only = kind is inspect.Parameter.KEYWORD_ONLY
                has_default = draw(st.booleans()) or (defaulted and not keyword_only)
                defaulted = defaulted or (has_default and not keyword_only)
                if has_default:
                    default = object()
            parameters.append(inspect.Parameter(next(names), kind, default=default))
    return inspect.Signature(parameters)


def function_with(signature):
    """Return a function object that advertises ``signature`` and answers how it was called."""

    def function(*positional, **named):
        return positional, named

    function.__signature__ = signature
    return function


def misjudged_by_bind(signature, positional, named):
    """Say whether Signature.bind of older CPythons refuses a call that the interpreter accepts.

    It does where an optional positional-only parameter is left out and ``**options`` takes a keyword of its name.
    """
    only = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    return any(name in named for name in only[len(positional) :])


def outcome(call):
    """Return what a call did in a form that can be compared."""
    try:
        return call()
    except TypeError:
        return TypeError


@settings(max_examples=400, deadline=None)
@given(
    signature=signatures(),
    positional=st.lists(st.integers(), max_size=6),
    named=st.dictionaries(st.sampled_from([*NAMES, "other"]), st.integers(), max_size=4),
)
def test_binding_equals_inspect_signature_bind(signature, positional, named):
    """A wrapper accepts exactly the calls that Signature.bind accepts, and binds each value where bind puts it."""
    assume(not misjudged_by_bind(signature, positional, named))

    def expected():
        bound = signature.bind(*positional, **named)
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    wrapper = specialize(function_with(signature), "return $values", {})
    assert outcome(lambda: wrapper(*positional, **named)) == outcome(expected)


@settings(max_examples=200, deadline=None)
@given(
    signature=signatures(),
    positional=st.lists(st.integers(), max_size=6),
    named=st.dictionaries(st.sampled_from([*NAMES, "other"]), st.integers(), max_size=4),
)
def test_forwarding_reaches_the_function_unchanged(signature, positional, named):
    """What the wrapper forwards binds to the very arguments that the caller's call binds to."""
    assume(not misjudged_by_bind(signature, positional, named))

    def expected():
        bound = signature.bind(*positional, **named)
        bound.apply_defaults()
        return bound.arguments

    function = function_with(signature)
    wrapper = specialize(function, "return $function($args)", {"function": function})

    def forwarded():
        again, names = wrapper(*positional, **named)
        return signature.bind(*again, **names).arguments

    got, wanted = outcome(forwarded), outcome(expected)
    if wanted is TypeError:
        assert got is TypeError
    else:
        assert {k: v for k, v in got.items() if v not in ((), {})} == {
            k: v for k, v in wanted.items() if v not in ((), {})
        }
