"""The generated wrapper is indistinguishable from the function it stands in front of."""

import asyncio
import functools
import gc
import inspect
import linecache
import pickle
import traceback
import typing
import weakref

import pytest

from isp_perf._runtime.specialize import parameters, specialize
from isp_perf.errors import ConfigurationError


def passthrough(function):
    """Wrap ``function`` with a body that only calls it."""
    call = "return await $function($args)" if inspect.iscoroutinefunction(function) else "return $function($args)"
    return specialize(function, call, {"function": function})


def module_level(user_id: "Alias", *, deep: bool = False) -> "Alias":
    """Return what was given."""
    return user_id, deep


module_level = passthrough(module_level)
Alias = int


class Service:
    """A class whose methods are decorated in every usual order."""

    def __init__(self, name):
        self.name = name

    @passthrough
    def method(self, value=1):
        return self.name, value

    @classmethod
    @passthrough
    def of_class(cls, value=2):
        return cls.__name__, value

    @staticmethod
    @passthrough
    def static(value=3):
        return value

    @passthrough
    def mangled(self, value=0, *, __secret=4):
        return __secret


def test_metadata_is_that_of_the_function():
    """Name, qualified name, module, doc, annotations and signature are the function's own."""
    original = module_level.__wrapped__
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__", "__kwdefaults__"):
        assert getattr(module_level, name) == getattr(original, name)
    assert inspect.signature(module_level) == inspect.signature(original)
    assert inspect.signature(module_level, follow_wrapped=False).parameters.keys() == {"user_id", "deep"}


def test_string_annotations_resolve_in_the_functions_module():
    """Frameworks that resolve string annotations through the wrapper's globals find the user's names."""
    assert module_level.__globals__ is module_level.__wrapped__.__globals__
    assert typing.get_type_hints(module_level)["user_id"] is int


def test_pickling_is_by_reference():
    """A decorated function at module level survives a pickle round trip as the same object."""
    assert pickle.loads(pickle.dumps(module_level)) is module_level


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s: s.method(), ("a", 1)),
        (lambda s: s.method(value=5), ("a", 5)),
        (lambda s: Service.method(s, 6), ("a", 6)),
        (lambda s: s.of_class(), ("Service", 2)),
        (lambda s: Service.of_class(7), ("Service", 7)),
        (lambda s: s.static(), 3),
        (lambda s: Service.static(value=8), 8),
        (lambda s: s.mangled(), 4),
        (lambda s: s.mangled(_Service__secret=9), 9),
    ],
)
def test_methods_of_every_kind_bind_as_usual(call, expected):
    """Methods, class methods, static methods and mangled parameters bind as without the decorator."""
    assert call(Service("a")) == expected


def test_closures_keep_their_cells():
    """A wrapped closure still reads and writes the variables around it."""
    calls = []

    def outer(limit):
        @passthrough
        def inner(n):
            calls.append(n)
            return n < limit

        return inner

    assert [outer(3)(n) for n in (2, 3)] == [True, False]
    assert calls == [2, 3]


def test_parameters_may_have_any_of_our_names():
    """Parameters called like our constants, locals, factory or builtins do not collide with them."""

    def clash(function, hot, e, factory, call, KeyError=1, *args, e_=2, **values):
        return function, hot, e, factory, call, KeyError, args, e_, values

    body = "try:\n    $e = $hot[$param_0]\nexcept $KeyError:\n    return $function($args)\nreturn $e, $values"
    wrapper = specialize(clash, body, {"function": clash, "hot": {"seen": "entry"}, "KeyError": KeyError})
    assert wrapper(1, 2, 3, 4, 5) == clash(1, 2, 3, 4, 5)
    assert wrapper(1, 2, 3, 4, 5, 6, 7, e_=8, values=9) == clash(1, 2, 3, 4, 5, 6, 7, e_=8, values=9)
    assert wrapper("seen", 2, 3, 4, 5) == ("entry", ("seen", 2, 3, 4, 5, 1, (), 2, {}))


def test_positional_only_names_stay_free_for_keywords():
    """A positional-only parameter and an entry of **options may share a name, as in plain Python."""

    def function(x, /, **options):
        return x, options

    assert passthrough(function)(1, x=2) == (1, {"x": 2})


def test_defaults_are_the_same_objects():
    """Defaults are passed by identity and never through their text."""
    marker, inner = object(), []

    def function(a=marker, *, b=inner):
        return a, b

    a, b = passthrough(function)()
    assert a is marker
    assert b is inner


def test_wrong_arguments_fail_before_our_code_with_the_users_name():
    """A call that does not fit raises the interpreter's own TypeError about the user's function."""
    reached = []

    def load_profile(user_id):
        raise AssertionError

    wrapper = specialize(load_profile, "$reached.append(1)", {"reached": reached})
    with pytest.raises(TypeError, match=r"load_profile\(\) missing 1 required positional argument: 'user_id'"):
        wrapper()
    with pytest.raises(TypeError, match=r"load_profile\(\) got an unexpected keyword argument 'other'"):
        wrapper(1, other=2)
    assert reached == []


def test_tracebacks_show_the_users_function_and_our_line():
    """A traceback names the user's function for our frame and prints the generated line."""

    def load_profile(user_id):
        raise LookupError

    with pytest.raises(LookupError) as caught:
        passthrough(load_profile)(1)
    frames = traceback.extract_tb(caught.value.__traceback__)[1:]
    assert [frame.name for frame in frames] == ["load_profile", "load_profile"]
    assert frames[0].line == "return function(user_id)"
    linecache.checkcache()
    assert "return function(user_id)" in "".join(linecache.getlines(frames[0].filename))


def test_positional_only_default_leaves_its_name_to_the_options():
    """A left-out positional-only default and a keyword of its name bind as the interpreter binds them."""

    def function(x=1, /, **options):
        return x, options

    assert passthrough(function)(x=2) == function(x=2) == (1, {"x": 2})


def test_colour_follows_the_function_unless_told():
    """An async def stays a coroutine function; the colour can be forced either way."""

    async def load(x):
        return x

    def plain(x):
        return x

    assert inspect.iscoroutinefunction(passthrough(load))
    assert asyncio.run(passthrough(load)(3)) == 3
    assert not inspect.iscoroutinefunction(specialize(load, "return $values", {}, asynchronous=False))
    assert specialize(load, "return $values", {}, asynchronous=False)(3) == (3,)
    assert inspect.iscoroutinefunction(specialize(plain, "return $values", {}, asynchronous=True))


def test_generators_of_both_colours_can_be_generated():
    """A body with yield makes a generator, or an async generator in front of an async function."""

    def count(n):
        yield from range(n)

    async def acount(n):
        for i in range(n):
            yield i

    async def collect():
        body = "async for $item in $function($args):\n    yield $item"
        wrapper = specialize(acount, body, {"function": acount})
        assert inspect.isasyncgenfunction(wrapper)
        return [item async for item in wrapper(3)]

    wrapper = specialize(count, "yield from $function($args)", {"function": count})
    assert inspect.isgeneratorfunction(wrapper)
    assert list(wrapper(3)) == asyncio.run(collect()) == [0, 1, 2]


def test_partials_and_callable_objects_are_accepted():
    """A partial and a callable object are wrapped by their signature, named after what they have."""

    class Loader:
        def __call__(self, x, y=2):
            return x, y

    assert passthrough(functools.partial(lambda a, b: (a, b), 1))(5) == (1, 5)
    wrapper = passthrough(Loader())
    assert wrapper(1) == (1, 2)
    assert wrapper.__name__ == "Loader"


def test_lambdas_keep_their_name():
    """A lambda's name, which is no identifier, survives."""
    wrapper = passthrough(lambda x: x)
    assert wrapper.__name__ == "<lambda>"
    assert wrapper(1) == 1


@pytest.mark.parametrize("descriptor", [classmethod, staticmethod, property])
def test_descriptors_are_refused_with_the_order_that_works(descriptor):
    """Decorating above @classmethod, @staticmethod or @property says to go under it."""
    with pytest.raises(ConfigurationError, match=f"put it under @{descriptor.__name__}, not above it"):
        parameters(descriptor(lambda: None))


@pytest.mark.parametrize(("value", "rule"), [(3, "only a callable"), (dict.update, "signature cannot be read")])
def test_what_cannot_be_wrapped_is_refused(value, rule):
    """A non-callable and a builtin without a signature raise a ConfigurationError."""
    with pytest.raises(ConfigurationError, match=rule):
        specialize(value, "return 1", {})


def test_equal_shapes_share_their_source_text():
    """Decorating many functions of one shape adds one text to linecache, not one each."""

    def make(n):
        def load(user_id):
            return n

        return passthrough(load)

    first = make(0)
    before = len(linecache.cache)
    assert [make(n)(None) for n in range(50)] == list(range(50))
    assert len(linecache.cache) == before
    assert make(1).__code__.co_filename == first.__code__.co_filename


def test_a_dropped_wrapper_is_collected():
    """Nothing keeps a wrapper or its function alive once the user lets go."""

    def load(x):
        return x

    wrapper = passthrough(load)
    gone = weakref.ref(wrapper), weakref.ref(load)
    del wrapper, load
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
