"""Values become bytes and come back as they were, or are refused; nothing foreign is run or inflated."""

import json
import pickle
import random
import shutil
import struct
import subprocess
import sys
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from isp_perf.cache import CacheManager, MsgpackCodec, PickleCodec
from isp_perf.cache import _packing as packing
from isp_perf.cache._codec import codec_for
from isp_perf.cache._packing import LARGEST_BYTES, expand, squeeze
from isp_perf.errors import CodecError, ConfigurationError


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


@dataclass
class Address:
    street: str
    number: int = 0


@dataclass
class Customer:
    name: str
    address: Address
    tags: set[str] = field(default_factory=set)
    since: date = date(2020, 1, 1)


class Plan(msgspec.Struct):
    name: str
    price: Decimal


class Row(TypedDict):
    id: int
    at: datetime


class Point(NamedTuple):
    x: int
    y: float


class Invoice(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    total: Decimal = pydantic.Field(alias="Total")
    due: datetime
    lines: tuple[int, ...] = ()
    spent: timedelta = timedelta(0)

    @pydantic.computed_field
    @property
    def doubled(self) -> Decimal:
        return 2 * self.total


class Account(pydantic.BaseModel):
    invoices: list[Invoice]
    id: UUID


NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
INVOICE = Invoice(Total=Decimal("9.90"), due=NOW, lines=(1, 2), spent=timedelta(hours=1))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Customer, Customer("ana", Address("a", 1), {"x"}, date(2024, 2, 29))),
        (list[Customer], [Customer("ana", Address("a"))]),
        (Plan, Plan("fibra", Decimal("99.90"))),
        (dict[str, Plan], {"a": Plan("a", Decimal(1))}),
        (Row, {"id": 1, "at": NOW}),
        (Point, Point(1, 2.5)),
        (list[Point], [Point(1, 2.0), Point(3, 4.0)]),
        (datetime, NOW),
        (datetime, NOW.replace(tzinfo=None)),
        (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3)))),
        (date, date(2026, 1, 1)),
        (timedelta, timedelta(days=1, microseconds=5)),
        (UUID, UUID(int=7)),
        (Decimal, Decimal("0.10")),
        (Colour, Colour.RED),
        (Level, Level.LOW),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (tuple[int, str], (1, "a")),
        (bytes, b"\x00\xff"),
        (Customer | None, None),
        (float, 1),
        (dict[str, Any], {"a": [1, {"b": None}]}),
        (Invoice, INVOICE),
        (list[Invoice], [INVOICE]),
        (Account, Account(invoices=[INVOICE], id=UUID(int=1))),
        (Any, {"a": [1, 2.5, "x", b"y", None, True, NOW], 3: {}}),
    ],
)
def test_round_trip(annotation, value):
    """What goes in comes out: equal and of the same type."""
    codec = MsgpackCodec(annotation)
    back = codec.decode(codec.encode(value))
    assert back == value
    assert type(back) is type(value) or isinstance(value, int)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Any, Customer("ana", Address("a"))),
        (Any, {"a": {1, 2}}),
        (Any, {(1, 2): 3}),
        (Any, NOW.replace(tzinfo=None)),
        (dict[str, Any], {"at": NOW.replace(tzinfo=None)}),
        (dict, {"plan": Plan("a", Decimal(1))}),
        (object, Point(1, 2)),
        (list, [Colour.RED]),
        (Address, {"street": "a", "number": 1}),
        (Address, Customer("ana", Address("a"))),
        (dict[str, int], OrderedDict(a=1)),
        (list[int], (1, 2)),
        (str, Colour.RED),
        (int, Level.LOW),
        (int, True),
        (set[float], {1}),
        (Invoice, Address("a")),
        (Address, object()),
        (Address, lambda: 0),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(annotation, value):
    """The first store says so, with the type and without the value."""
    with pytest.raises(CodecError, match=r"come back|cannot be encoded") as caught:
        MsgpackCodec(annotation).encode(value)
    assert "ana" not in str(caught.value)


def test_open_types_are_checked_each_time():
    """Where the annotation leaves a value open, the hundredth value is checked as the first one was."""
    codec = MsgpackCodec(dict[str, Any])
    codec.encode({"a": 1})
    with pytest.raises(CodecError):
        codec.encode({"a": NOW.date()})


def test_int_subclasses_and_plain_subclasses_pass_as_their_base():
    """A text or number of a subclass comes back as the equal plain one."""

    class Markup(str):
        __slots__ = ()

    codec = MsgpackCodec(str)
    assert codec.decode(codec.encode(Markup("<b>"))) == "<b>"


class TestShape:
    """The fingerprint changes with the declared type, nested types included."""

    def declared(self, inner):
        """Build a type whose nested record has the fields ``inner``."""
        return msgspec.defstruct("Outer", [("inner", list[msgspec.defstruct("Inner", inner)])])

    def test_nested_fields_count(self):
        """Another name, type or number of fields of a nested record is another shape; the same one is the same."""
        shapes = [
            MsgpackCodec(self.declared(inner)).shape
            for inner in ([("a", int)], [("b", int)], [("a", str)], [("a", int), ("b", int)], [("a", int)])
        ]
        assert len(set(shapes)) == 4
        assert shapes[0] == shapes[4]

    def test_models_count(self):
        """So do the fields of a pydantic model, also inside of a list."""
        one = pydantic.create_model("Model", a=int)
        two = pydantic.create_model("Model", a=str)
        assert MsgpackCodec(list[one]).shape != MsgpackCodec(list[two]).shape
        assert MsgpackCodec(one).shape == MsgpackCodec(pydantic.create_model("Model", a=int)).shape

    def test_members_of_enums_count(self):
        """An Enum with other values is another shape."""
        assert MsgpackCodec(Enum("E", {"A": 1})).shape != MsgpackCodec(Enum("E", {"A": 2})).shape

    def test_a_type_without_a_schema_has_one_too(self):
        """What has no JSON schema is told apart by its annotation."""
        assert MsgpackCodec(dict[Point, int]).shape != MsgpackCodec(dict[tuple[int, str], int]).shape

    async def test_a_changed_model_is_a_miss(self, remote):
        """After a deployment that changed the nested model the value is loaded anew."""
        loads = []
        for inner in ([("a", int)], [("a", int), ("b", int, 0)]):
            kind = self.declared(inner)

            async def load(x: int, kind=kind):
                loads.append(x)
                return kind(inner=[])

            load.__annotations__["return"] = kind
            await CacheManager(redis=remote).cached("m:{x}")(load)(1)
        assert loads == [1, 1]


class TestCompression:
    """Large payloads shrink, if that pays."""

    def test_small_and_incompressible_payloads_stay_plain(self):
        """Below 2 KiB, and for noise, the payload is MessagePack as any reader knows it."""
        assert squeeze(b"a" * 2047) == b"a" * 2047
        noise = random.Random(1).randbytes(5000)
        assert squeeze(noise) == noise

    @pytest.mark.parametrize("zstd", [True, False])
    def test_large_payloads_shrink_and_come_back(self, zstd, monkeypatch):
        """With zstd, and with zlib where it is not installed."""
        if not zstd:
            monkeypatch.setattr(packing, "_zstd", lambda: None)
        data = msgspec.msgpack.encode([{"id": number, "plan": "fibra"} for number in range(500)])
        packed = squeeze(data)
        assert len(packed) < len(data) / 4
        assert packed[:2] == bytes((0xC1, 2 if zstd else 1))
        assert expand(packed) == data

    def test_a_payload_that_looks_compressed_is_marked(self):
        """Bytes of a foreign codec that begin as ours do come back unchanged."""
        for data in (b"\xc1", b"\xc1" + bytes(10), b"\xc1" + random.Random(2).randbytes(3000)):
            assert expand(squeeze(data)) == data

    @pytest.mark.parametrize("method", [1, 2])
    def test_bombs_and_damage_are_refused(self, method):
        """More than is announced, or more than 64 MB, is not opened; damaged bytes are an error of ours."""
        data = bytes(1 << 20)
        body = zlib.compress(data) if method == 1 else packing._zstd().compress(data)

        def packed(size, body=body, method=method):
            return struct.pack(">BBI", 0xC1, method, size) + body

        assert expand(packed(len(data))) == data
        for bad in (
            packed(LARGEST_BYTES + 1),
            packed(0),
            packed(5000),
            packed(len(data) + 1),
            packed(len(data), body[:-9]),
            packed(len(data), b"noise" * 9),
            packed(len(data), method=9),
            b"\xc1\x01",
        ):
            with pytest.raises(CodecError):
                expand(bad)

    def test_values_too_large_to_open_are_not_compressed(self, monkeypatch):
        """What the reader would refuse the writer does not write."""
        monkeypatch.setattr(packing, "LARGEST_BYTES", 4000)
        assert squeeze(bytes(4001)) == bytes(4001)

    async def test_a_large_value_is_small_in_the_remote_level(self, remote):
        """A cached function's long list is compressed in the remote level, and read back."""
        loads = []

        async def rows() -> list[dict[str, int]]:
            loads.append(1)
            return [{"id": number, "customer": 7} for number in range(1000)]

        first = await CacheManager(redis=remote).cached("rows")(rows)()
        data = remote.data["isp:1:rows"]
        assert len(data) < 6000
        assert await CacheManager(redis=remote).cached("rows")(rows)() == first
        assert loads == [1]

    async def test_a_codec_of_the_users_own_is_compressed_too(self, remote):
        """Any codec's bytes are packed; a damaged value is a miss."""

        class Text:
            def encode(self, value):
                return value.encode()

            def decode(self, data):
                return data.decode()

        loads = []

        async def load() -> str:
            loads.append(1)
            return "text " * 1000

        await CacheManager(redis=remote).cached("t", codec=Text())(load)()
        key = "isp:1:t"
        data = remote.data[key]
        assert len(data) < 500
        remote.data[key] = data[:-5]
        assert await CacheManager(redis=remote).cached("t", codec=Text())(load)() == "text " * 1000
        assert loads == [1, 1]


SECRET, OTHER = b"s" * 16, b"o" * 80


class Mine:
    def __init__(self, x):
        self.x = x


class Trap:
    """Notes when it is unpickled."""

    sprung: list = []

    def __reduce__(self):
        return (Trap.sprung.append, (1,))


class TestPickle:
    """Pickle only with a signature that is checked first."""

    def test_round_trip_of_any_type(self):
        """Objects of one's own come back, large ones compressed."""
        codec = PickleCodec(secret=SECRET)
        assert codec.decode(codec.encode(Mine(5))).x == 5
        large = [Mine(0)] * 10_000
        assert len(codec.encode(large)) < len(pickle.dumps(large)) / 4
        assert len(codec.decode(codec.encode(large))) == 10_000

    @pytest.mark.parametrize("forge", [lambda data: data, lambda data: bytes(32) + data, lambda data: data[:10]])
    def test_nothing_unsigned_is_unpickled(self, forge):
        """Bytes with no, a wrong or a cut-off signature raise before a single opcode runs."""
        Trap.sprung.clear()
        with pytest.raises(CodecError, match="without a valid signature"):
            PickleCodec(secret=SECRET).decode(forge(pickle.dumps(Trap())))
        assert Trap.sprung == []

    def test_changed_bytes_and_other_secrets_are_refused(self):
        """One flipped bit anywhere, or another secret, is no valid signature."""
        data = PickleCodec(secret=SECRET).encode({"a": 1})
        for place in range(len(data)):
            with pytest.raises(CodecError):
                PickleCodec(secret=SECRET).decode(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])
        with pytest.raises(CodecError):
            PickleCodec(secret=OTHER).decode(data)

    def test_secrets_can_be_changed_without_losing_values(self):
        """The first one signs, all verify."""
        old, both = PickleCodec(secret=OTHER), PickleCodec(secret=[SECRET, OTHER])
        assert both.decode(old.encode(1)) == 1
        assert PickleCodec(secret=SECRET).decode(both.encode(2)) == 2

    def test_what_cannot_be_pickled_or_read(self):
        """Both are a CodecError; the message names the type only."""
        codec = PickleCodec(secret=SECRET)
        with pytest.raises(CodecError, match="a function cannot be pickled"):
            codec.encode(lambda: "ana")
        data = codec.encode(Mine(1))
        renamed = sys.modules[__name__].__dict__.pop("Mine")
        try:
            with pytest.raises(CodecError, match="cannot be read"):
                codec.decode(data)
        finally:
            sys.modules[__name__].__dict__["Mine"] = renamed

    @pytest.mark.parametrize("secret", [b"short", [], "text" * 10, [b"s" * 16, "x"], None, 5])
    def test_bad_secrets(self, secret):
        """No secret, a short one or none of bytes is a ConfigurationError that does not show it."""
        with pytest.raises(ConfigurationError, match=r"secret='\(hidden\)'"):
            PickleCodec(secret=secret)

    async def test_in_a_cached_function(self, remote):
        """codec=PickleCodec(...) carries what no annotation describes; forged bytes are a miss."""
        loads = []

        async def load(x: int):
            loads.append(x)
            return Mine(x)

        def other_process():
            return CacheManager(redis=remote).cached("p:{x}", codec=PickleCodec(secret=SECRET))(load)

        await other_process()(1)
        assert (await other_process()(1)).x == 1
        key, data = next(iter(remote.data.items()))
        remote.data[key] = data.replace(data[-60:-20], bytes(40))
        assert (await other_process()(1)).x == 1
        assert loads == [1, 1]


def test_payloads_are_plain_messagepack():
    """A small payload is what any MessagePack library reads: names of fields, no types of Python."""
    codec = codec_for(lambda: 0, None)
    assert msgspec.msgpack.decode(codec.encode({"id": 1, "name": "ana"})) == {"id": 1, "name": "ana"}
    assert MsgpackCodec(Address).encode(Address("a", 2)) == b"\x82\xa6street\xa1a\xa6number\x02"


def test_other_languages_read_our_payloads():
    """Node's msgpackr reads a payload as we wrote it."""
    program = (
        "const {unpack} = require('msgpackr');"
        "process.stdout.write(JSON.stringify(unpack(Buffer.from(process.argv[1], 'hex'))))"
    )
    value = {"id": 2**31, "names": ["ana", "é"], "plan": {"speed": 1.5, "paid": True, "until": None}}
    data = MsgpackCodec(dict[str, Any]).encode(value)
    node = shutil.which("node")
    done = node and subprocess.run([node, "-e", program, data.hex()], capture_output=True, check=False, timeout=30)
    if not done or b"Cannot find module" in done.stderr:
        pytest.skip("node with msgpackr is not installed (npm install msgpackr, NODE_PATH)")
    assert json.loads(done.stdout) == value
