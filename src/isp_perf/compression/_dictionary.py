"""Dictionary compression (RFC 9842, ``dcz``): a response coded against something that the client has already.

Two sources: a dictionary trained from the service's own answers, which the middleware serves, and the previous response
of a polled resource. A client names what it has by SHA-256; what is malformed or unknown is ignored, and the response
is coded as usual. The dictionary is used as raw content, so any bytes will do.
"""

import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import partial
from hashlib import sha256
from typing import Final

from isp_perf._core.cost import level_for
from isp_perf.compression._asgi import Scope, Send
from isp_perf.compression._codecs import Codec, DictionaryCodec, codec, dictionary_codec
from isp_perf.errors import ConfigurationError

__all__ = [
    "DICTIONARY_FIELDS",
    "Dictionaries",
    "Dictionary",
    "DictionaryGain",
    "DictionaryUse",
    "Prepared",
    "Shelf",
    "make_shelf",
    "measure_dictionary",
    "train_dictionary",
]

DICTIONARY_FIELDS: Final = (b"available-dictionary", b"sec-fetch-site", b"cookie", b"authorization", b"host")
_MAGIC: Final = b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"  # RFC 9842 5: a skippable frame that holds the hash
_MATCH = re.compile(r"/[A-Za-z0-9/_.~%*-]*")
_DIGEST_BYTES: Final = 32
_OWN_SITES: Final = (b"", b"same-origin", b"none")
_LOCAL = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?", re.IGNORECASE)
_MIN_TRAINED = 256


def _checked_match(setting: str, match: str) -> str:
    if _MATCH.fullmatch(match) is None:
        raise ConfigurationError(
            setting, match, "a path pattern with * as the only wildcard (RFC 9842 2.1.1)", "for example '/api/list*'"
        )
    return match


@dataclass(frozen=True, slots=True)
class Dictionary:
    """A dictionary that the middleware serves, for clients to fetch once and keep.

    Attributes:
        content: the bytes, for example from ``train_dictionary``; 16 KiB is a good size.
        match: which paths it is for, ``*`` as wildcard: ``"/api/*"``.
        path: where it is served; default: a path below ``/.well-known/`` that names its hash.
        max_age: seconds a client may keep it; default 30 days.
    """

    content: bytes
    match: str
    path: str = ""
    max_age: int = 30 * 86400
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.content:
            raise ConfigurationError("content", "b''", "a dictionary has bytes", "train one with train_dictionary()")
        _checked_match("match", self.match)
        digest = sha256(self.content).digest()
        object.__setattr__(self, "digest", digest)
        object.__setattr__(self, "path", self.path or f"/.well-known/isp-perf/{digest.hex()[:32]}.dict")


@dataclass(frozen=True, slots=True)
class Dictionaries:
    """Which responses are coded with a dictionary. Needs the ``zstd`` extra; without it nothing changes.

    Used over https (or on localhost) and for requests of the same origin only.

    Attributes:
        trained: dictionaries to serve and to use.
        delta: path patterns of polled resources, ``*`` as wildcard: the previous response is the dictionary of the next
            one. A client keeps a response only while it is fresh in its HTTP cache, so the resource needs a
            ``Cache-Control`` with a max-age.
        session: returns the key of the user whom a request belongs to, or ``None``. With it, a private response is a
            dictionary for its own user only; without it (default), only responses that are public, or come without
            cookie and credentials and are not marked private, become dictionaries.
        max_bytes: bytes of previous responses that are kept, default 32 MiB; the longest unused go first.
        max_body: responses above this many bytes do not become dictionaries; default 256 KiB.
    """

    trained: tuple[Dictionary, ...] = ()
    delta: tuple[str, ...] = ()
    session: Callable[[Scope], str | bytes | None] | None = None
    max_bytes: int = 32 << 20
    max_body: int = 256 << 10

    def __post_init__(self) -> None:
        for match in self.delta:
            _checked_match("delta", match)
        for setting, value in (("max_bytes", self.max_bytes), ("max_body", self.max_body)):
            if value < 1:
                raise ConfigurationError(setting, value, "bytes >= 1", "leave it out for the default")


class Prepared:
    """A dictionary that the codec has digested once."""

    __slots__ = ("_encode", "_prefix", "body", "digest")

    def __init__(self, body: bytes, digest: bytes, encode: Callable[[bytes], bytes]) -> None:
        self.body = body
        self.digest = digest
        self._prefix = _MAGIC + digest
        self._encode = encode

    def code(self, body: bytes) -> bytes:
        """Return ``body`` coded with this dictionary, in the format of RFC 9842 5."""
        return self._prefix + self._encode(body)


class DictionaryUse:
    """What dictionaries mean for one request.

    Attributes:
        dictionary: what the client has and we know, if it is to be used.
        offer: the pattern under which the response becomes a dictionary itself.
        link: where a trained dictionary can be fetched that the client does not have.
        owner: the key of the user whose dictionaries these are; ``None`` for everybody's.
        personal: the request is some user's, but nobody told whose.
    """

    __slots__ = ("dictionary", "link", "offer", "owner", "personal")

    def __init__(self) -> None:
        self.dictionary: Prepared | None = None
        self.offer: str | None = None
        self.link: str | None = None
        self.owner: str | bytes | None = None
        self.personal = False


class _Trained:
    """A dictionary that is served, ready for use."""

    __slots__ = ("path", "pattern", "prepared")

    def __init__(self, dictionary: Dictionary, digester: DictionaryCodec) -> None:
        self.path = dictionary.path
        self.pattern = re.compile(translate(dictionary.match))
        self.prepared = Prepared(
            dictionary.content, dictionary.digest, digester.prepare(dictionary.content, lasting=True)
        )

    def use(self, use: DictionaryUse, digest: bytes | None) -> None:
        """Use it if the client has it and no previous response serves better; else tell where it is."""
        if digest == self.prepared.digest:
            use.dictionary = use.dictionary or self.prepared
        elif use.dictionary is None:
            use.link = self.path


def _named(value: bytes | None) -> bytes | None:
    """Return the digest that Available-Dictionary names (a structured-field byte sequence), or ``None``."""
    if value is None or not (value.startswith(b":") and value.endswith(b":")):
        return None
    try:
        digest = b64decode(value[1:-1], validate=True)
    except ValueError:
        return None
    return digest if len(digest) == _DIGEST_BYTES else None


def _permitted(scope: Scope, found: dict[bytes, bytes]) -> bool:
    """Say whether the request may be answered with a dictionary: secure context, same origin (RFC 9842 9.3)."""
    if found.get(b"sec-fetch-site", b"") not in _OWN_SITES:
        return False
    return scope.get("scheme") == "https" or _LOCAL.fullmatch(found.get(b"host", b"")) is not None


class Shelf:
    """The dictionaries of one middleware: those it serves, and previous responses in a byte-bounded LRU."""

    def __init__(self, config: Dictionaries, codec: DictionaryCodec) -> None:
        self._config = config
        self._codec = codec
        self._trained = [_Trained(d, codec) for d in config.trained]
        self._served = {d.path: d for d in config.trained}
        self._delta = [(re.compile(translate(match)), match) for match in config.delta]
        self._by_digest: dict[tuple[str | bytes | None, bytes], Prepared] = {}
        self._by_body: dict[tuple[str | bytes | None, bytes], bytes] = {}
        self._bytes = 0

    def use(self, scope: Scope, found: dict[bytes, bytes], *, wanted: bool) -> DictionaryUse | None:
        """Return what dictionaries mean for a request, or ``None`` if its path has none.

        Args:
            scope: the request's scope.
            found: its fields among ``DICTIONARY_FIELDS``.
            wanted: whether the client takes ``dcz``.
        """
        trained, offer = self._matching(scope["path"])
        if trained is None and offer is None:
            return None
        use = DictionaryUse()
        if wanted and _permitted(scope, found):
            digest = _named(found.get(b"available-dictionary"))
            if offer is not None:
                self._use_previous(use, scope, found, offer=offer, digest=digest)
            if trained is not None:
                trained.use(use, digest)
        return use

    def _matching(self, path: str) -> tuple[_Trained | None, str | None]:
        trained = next((entry for entry in self._trained if entry.pattern.match(path)), None)
        return trained, next((match for pattern, match in self._delta if pattern.match(path)), None)

    def _use_previous(
        self, use: DictionaryUse, scope: Scope, found: dict[bytes, bytes], *, offer: str, digest: bytes | None
    ) -> None:
        session = self._config.session
        use.offer = offer
        use.owner = None if session is None else session(scope)
        use.personal = use.owner is None and (b"cookie" in found or b"authorization" in found)
        if digest is not None:
            key = (use.owner, digest)
            entry = self._by_digest.pop(key, None)
            if entry is not None:
                self._by_digest[key] = entry
                use.dictionary = entry

    def keep(self, use: DictionaryUse, body: bytes, control: bytes) -> bytes | None:
        """Keep a response as a dictionary, and return the value of Use-As-Dictionary; ``None`` if it must not be."""
        if use.offer is None or len(body) > self._config.max_body or not self._may_keep(use, control.lower()):
            return None
        owner = use.owner
        digest = self._by_body.get((owner, body))
        if digest is None:
            digest = sha256(body).digest()
            self._by_digest[owner, digest] = Prepared(body, digest, self._codec.prepare(body, lasting=False))
            self._by_body[owner, body] = digest
            self._bytes += len(body)
            while self._bytes > self._config.max_bytes:
                oldest = next(iter(self._by_digest))
                gone = self._by_digest.pop(oldest)
                del self._by_body[oldest[0], gone.body]
                self._bytes -= len(gone.body)
        return f'match="{use.offer}"'.encode("ascii")

    def _may_keep(self, use: DictionaryUse, control: bytes) -> bool:
        if b"no-store" in control:
            return False
        if use.owner is not None:
            return True
        return b"private" not in control and (b"public" in control or not use.personal)

    def answer(self, path: str) -> Callable[[str, Send], Awaitable[None]] | None:
        """Return what answers a request for the dictionary that is served at this path, if any."""
        served = self._served.get(path)
        return None if served is None else partial(_serve, served)


def make_shelf(config: Dictionaries | None) -> Shelf | None:
    """Return the dictionaries, or ``None`` without them or without a codec for them."""
    codec = None if config is None else dictionary_codec()
    return None if config is None or codec is None else Shelf(config, codec)


async def _serve(dictionary: Dictionary, method: str, send: Send) -> None:
    """Answer a request for a trained dictionary."""
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % len(dictionary.content)),
        (b"cache-control", b"public, max-age=%d" % dictionary.max_age),
        (b"use-as-dictionary", f'match="{dictionary.match}"'.encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else dictionary.content})


def train_dictionary(samples: Sequence[bytes], *, max_size: int = 16 << 10) -> bytes:
    """Train a dictionary from answers of the service, for ``Dictionary``.

    Args:
        samples: complete bodies of the kind that will be compressed; a hundred or more, of a few KB each.
        max_size: bytes the dictionary may have, default 16 KiB, at least 256.

    Returns:
        The dictionary: store it in a file, so that every worker has the same.

    Raises:
        ConfigurationError: there is no zstd library, or there are too few samples to learn from.
    """
    found = _training_codec()
    if max_size < _MIN_TRAINED:
        raise ConfigurationError("max_size", max_size, f"at least {_MIN_TRAINED} bytes", "16384 is a good start")
    trained = found.train(list(samples), max_size)
    if trained is None:
        raise ConfigurationError(
            "samples", len(samples), "the codec found too little in common", "give it a hundred real answers or more"
        )
    return trained


@dataclass(frozen=True, slots=True)
class DictionaryGain:
    """What a dictionary does for a set of bodies, each coded by itself; all sizes in bytes.

    Attributes:
        bodies: how many bodies were coded.
        plain: their size uncoded.
        brotli: their size in brotli at its ordinary level; ``None`` without a brotli library.
        zstd: their size in zstd without a dictionary.
        dcz: their size in zstd with the dictionary, the 40 bytes that name it included.
    """

    bodies: int
    plain: int
    brotli: int | None
    zstd: int
    dcz: int

    @property
    def saved_ratio(self) -> float:
        """The share of the plain bytes that the dictionary saves, 0-1; negative if the bodies grow."""
        return 1 - self.dcz / self.plain


def measure_dictionary(content: bytes, bodies: Sequence[bytes]) -> DictionaryGain:
    """Code bodies with a dictionary and without, to see what it is worth.

    Give it bodies that the dictionary was not trained from, or the figures flatter it.

    Args:
        content: the dictionary, for example from ``train_dictionary``.
        bodies: complete bodies, at least one that is not empty.

    Raises:
        ConfigurationError: there is no zstd library, or nothing to code.
    """
    if not any(bodies):
        raise ConfigurationError("bodies", len(bodies), "at least one body with bytes", "hold some samples back")
    prepared, zstd, brotli = _training_codec().prepare(content, lasting=True), codec("zstd"), codec("br")
    return DictionaryGain(
        bodies=len(bodies),
        plain=sum(map(len, bodies)),
        brotli=None if brotli is None else _total(brotli, "br", bodies),
        zstd=0 if zstd is None else _total(zstd, "zstd", bodies),
        dcz=sum(len(_MAGIC) + _DIGEST_BYTES + len(prepared(body)) for body in bodies),
    )


def _total(used: Codec, coding: str, bodies: Sequence[bytes]) -> int:
    return sum(len(used.whole(body, level_for(coding, len(body), 0))) for body in bodies)


def _training_codec() -> DictionaryCodec:
    found = dictionary_codec()
    if found is None:
        raise ConfigurationError(
            "train_dictionary", "no zstd", "training needs a zstd library", "pip install isp-perf[zstd]"
        )
    return found
