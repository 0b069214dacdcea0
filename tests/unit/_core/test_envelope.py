"""The sealed envelope: what comes back, and everything that must not."""

import itertools
import random

import pytest

from isp_perf._core.envelope import Contents, Rejection, Sealer, outdated, tags_in

SHAPE = b"shape..1"
OLD, NEW = b"old secret of 16+ bytes", b"new secret of 16+ bytes"


def contents(payload=b"payload", **changes):
    tags = changes.pop("tags", {"customer:1": b"version1", "bills": b"version2"})
    return Contents(payload, b"epoch..1", tags, 1_700_000_000.25, 300.0, 0.05)._replace(**changes)


def test_what_was_sealed_comes_back():
    """Payload, versions and times survive; the tags can be read before anything is believed."""
    sealer = Sealer("isp", [NEW])
    data = sealer.seal("isp:1:k", contents(), shape=SHAPE)
    assert sealer.open("isp:1:k", data, shape=SHAPE) == contents()
    assert tags_in(data) == ("customer:1", "bills")
    assert tags_in(b"no envelope") == ()
    assert sealer.authenticated
    assert not Sealer("isp").authenticated


@pytest.mark.parametrize("secrets", [(), (NEW,)])
def test_key_namespace_and_shape_are_part_of_the_seal(secrets):
    """The same bytes under another key, in another namespace or for another type are rejected."""
    data = Sealer("isp", secrets).seal("isp:1:k", contents(), shape=SHAPE)
    opened = Sealer("isp", secrets)
    assert opened.open("isp:1:other", data, shape=SHAPE) is Rejection.FORGED
    assert opened.open("isp:1:k", data, shape=b"shape..2") is Rejection.SHAPE
    expected = Rejection.FORGED if secrets else Rejection.UNKNOWN_KEY
    assert Sealer("shop", secrets).open("isp:1:k", data, shape=SHAPE) is expected


def test_secrets_rotate_in_three_steps():
    """Each step reads what the step before wrote; a secret that is unknown is skew, and is never replaced."""
    steps = [Sealer("isp", keys) for keys in ([OLD], [OLD, NEW], [NEW, OLD], [NEW])]
    for before, after in itertools.pairwise(steps):
        data = before.seal("k", contents(), shape=SHAPE)
        assert after.open("k", data, shape=SHAPE) == contents()
    assert steps[-1].open("k", steps[0].seal("k", contents(), shape=SHAPE), shape=SHAPE) is Rejection.UNKNOWN_KEY
    assert Rejection.UNKNOWN_KEY.skew
    assert not Rejection.FORGED.skew


def test_a_later_format_is_left_alone():
    """An envelope of a newer format is skew; anything else that is no envelope is foreign."""
    sealer = Sealer("isp")
    data = bytearray(sealer.seal("k", contents(), shape=SHAPE))
    data[2] += 1
    assert sealer.open("k", bytes(data), shape=SHAPE) is Rejection.NEWER_FORMAT
    assert Rejection.NEWER_FORMAT.skew
    for foreign in (b"", b"x", b'{"json": true}', b"\x80\x04pickle", b"\xe5i", b"L" + bytes(16), b"ip1" + bytes(100)):
        assert not isinstance(sealer.open("k", foreign, shape=SHAPE), Contents)


def test_an_old_version_of_namespace_or_tag_is_outdated():
    """A value counts only while the versions are those from before its load."""
    sealed = contents(tags={"a": b"1" * 8})
    assert not outdated(sealed, b"epoch..1", {"a": b"1" * 8})
    assert outdated(sealed, b"epoch..2", {"a": b"1" * 8})
    assert outdated(sealed, b"epoch..1", {"a": b"2" * 8})
    assert outdated(sealed, b"epoch..1", {})


def mutated(data, draw):
    """Return other bytes: flipped, cut, extended, duplicated or shuffled parts of an envelope."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        place = draw.randrange(len(changed)) if changed else 0
        action = draw.randrange(5)
        if action == 0 and changed:
            changed[place] ^= 1 << draw.randrange(8)
        elif action == 1:
            del changed[place:]
        elif action == 2:
            changed[place:place] = draw.randbytes(draw.randrange(1, 9))
        elif action == 3:
            changed += changed[place:]
        elif changed:
            changed[place : place + 8] = draw.randbytes(8)
    return bytes(changed)


def hammer(rounds, seed):
    """Open ``rounds`` mutations of valid envelopes; none may be accepted, none may raise."""
    draw = random.Random(seed)
    sealer = Sealer("isp", [NEW, OLD])
    valid = [sealer.seal("k", contents(draw.randbytes(size)), shape=SHAPE) for size in (0, 1, 20, 300)]
    for _ in range(rounds):
        data = draw.choice(valid)
        changed = mutated(data, draw)
        if changed != data:
            tags_in(changed)
            assert not isinstance(sealer.open("k", changed, shape=SHAPE), Contents), (seed, changed.hex())


def test_no_mutation_of_a_valid_envelope_is_believed_or_raises():
    """20,000 mutations here; the session ``fuzz`` of the project does a million."""
    hammer(20_000, 7)


@pytest.mark.soak
def test_a_million_mutations_and_ten_million_forgeries():
    """A million mutations of valid envelopes and ten million blind forgeries: none accepted, none raised."""
    hammer(1_000_000, 11)
    draw = random.Random(12)
    sealer = Sealer("isp", [NEW])
    data = sealer.seal("k", contents(b"x" * 20), shape=SHAPE)
    head, tail = data[:-36], data[-20:]
    for _ in range(10_000_000):
        assert sealer.open("k", head + draw.randbytes(16) + tail, shape=SHAPE) is Rejection.FORGED


def test_surrogates_in_tags_and_keys():
    """Names that are no valid UTF-8 text are sealed and found again."""
    sealer = Sealer("isp")
    odd = contents(tags={"a\udc80": b"12345678"})
    assert sealer.open("k\udc80", sealer.seal("k\udc80", odd, shape=SHAPE), shape=SHAPE) == odd


SEALED = (
    "e5690200268573686170652e2e3165706f63682e2e310000018bcfe568fa000493e000000032000176657273696f6e310001"
    "6116c9632a750899ab7540e438617deba57061796c6f6164"
)
OPEN = (
    "e5690200d2a273686170652e2e3165706f63682e2e310000000000000000ffffffff000000000000c39287f516b791be4d2a3e7dc021460d"
)


def test_the_format_is_these_bytes():
    """What is in Redis today is read by every later version of this format, byte for byte; times are clamped."""
    sealer = Sealer("isp", [OLD])
    assert sealer.seal("isp:1:k", contents(tags={"a": b"version1"}), shape=SHAPE).hex() == SEALED
    assert sealer.open("isp:1:k", bytes.fromhex(SEALED), shape=SHAPE) == contents(tags={"a": b"version1"})
    far = Contents(b"", b"epoch..1", {}, -5.0, 1e9, -1.0)
    assert Sealer("isp").seal("k", far, shape=SHAPE).hex() == OPEN
    found = Sealer("isp").open("k", bytes.fromhex(OPEN), shape=SHAPE)
    assert found == Contents(b"", b"epoch..1", {}, 0.0, 0xFFFFFFFF / 1000, 0.0)


def test_reasons_are_these_words():
    """The reasons are labels of a metric, so they stay what they are."""
    words = {"foreign", "forged", "shape", "outdated", "unknown_key", "newer_format"}
    assert {reason.value for reason in Rejection} == words
    assert {reason for reason in Rejection if reason.skew} == {Rejection.UNKNOWN_KEY, Rejection.NEWER_FORMAT}


@pytest.mark.parametrize("text", [SEALED, OPEN])
def test_every_prefix_is_foreign(text):
    """An envelope that is cut short anywhere before its payload is foreign or damaged, and never read past its end."""
    data = bytes.fromhex(text)
    sealer = Sealer("isp", [OLD] if text is SEALED else [])
    head = len(data) - (7 + 16 if text is SEALED else 16)
    for end in range(head + 16):
        assert sealer.open("k", data[:end], shape=SHAPE) is Rejection.FOREIGN, end
        assert tags_in(data[:end]) == ()
    for end in range(head + 16, len(data)):
        assert sealer.open("isp:1:k", data[:end], shape=SHAPE) is Rejection.FORGED, end


def test_a_tag_may_have_no_name():
    """The shortest tag there is, last in the header of an envelope without a payload, comes back as well."""
    sealer, least = Sealer("isp"), contents(b"", tags={"": b"version1"})
    data = sealer.seal("k", least, shape=SHAPE)
    assert sealer.open("k", data, shape=SHAPE) == least
    assert tags_in(data) == ("",)


def test_bytes_do_not_move_from_one_part_to_another():
    """Namespace and key that read the same when joined are sealed differently, under a secret as well."""
    data = Sealer("a", [NEW]).seal("bc", contents(), shape=SHAPE)
    assert Sealer("ab", [NEW]).open("c", data, shape=SHAPE) is Rejection.FORGED
    odd = Sealer("\ud800", [NEW])
    assert odd.open("k", odd.seal("k", contents(), shape=SHAPE), shape=SHAPE) == contents()


def test_later_formats_are_told_from_short_bytes():
    """Only what is as long as a header of ours can be of a later format; this very format never is."""
    sealer, data = Sealer("isp"), bytearray.fromhex(OPEN)
    data[2] = 3
    assert sealer.open("k", bytes(data[:41]), shape=SHAPE) is Rejection.NEWER_FORMAT
    for short in (bytes(data[:40]), bytes.fromhex(OPEN)[:41]):
        assert sealer.open("k", short, shape=SHAPE) is Rejection.FOREIGN
    data[2] = 1
    assert sealer.open("k", bytes(data), shape=SHAPE) is Rejection.FOREIGN


def test_names_that_are_no_text_are_read_before_they_are_believed():
    """Bytes that nobody sealed may name tags in any bytes: some text stands for them."""
    data = bytearray.fromhex(SEALED)
    data[data.index(b"\x00\x01a") + 2] = 0xFF
    assert tags_in(bytes(data)) == ("\ufffd",)
    two = contents(tags={"a": b"1" * 8, "b": b"2" * 8})
    assert outdated(two, b"epoch..1", {"a": b"1" * 8, "b": b"3" * 8})
