"""Comments that silence a tool: few of them, each with the code it silences and the reason why."""

import io
import re
import tokenize
from collections.abc import Iterable, Iterator

from house.sizes import code_lines
from house.sources import Source

LINES_PER_SUPPRESSION = 1000

_SILENCER = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*(?:ignore|basic)|mypy:|pragma:\s*no|nosec|ruff:\s*noqa)")
_WITH_CODE_AND_REASON = re.compile(
    r"#\s*(?:noqa:\s*[A-Z]+\d+|type:\s*ignore\[[\w-]+\]|pyright:\s*ignore\[\w+\]|pragma:\s*no\s\w+)[\s#,:-]+\w+\W+\w+"
)


def suppressions(source: Source) -> Iterator[tuple[int, str]]:
    """Yield line number and text of every comment that silences a tool."""
    if not _SILENCER.search(source.text):
        return  # most files: what is not in the text is in no comment
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and _SILENCER.search(token.string):
            yield token.start[0], token.string


def unexplained(sources: Iterable[Source]) -> list[str]:
    """Name every suppression that lacks its code or its reason."""
    return [
        f"{source.name}:{line}: {comment!r} needs the code it silences and a reason of two words or more"
        for source in sources
        for line, comment in suppressions(source)
        if not _WITH_CODE_AND_REASON.search(comment)
    ]


def too_many(sources: Iterable[Source]) -> list[str]:
    """Say so when there is more than one suppression per 1,000 code lines over all ``sources``."""
    found: list[str] = []
    total = 0
    for source in sources:
        total += len(code_lines(source))
        found += [f"{source.name}:{line}: {comment}" for line, comment in suppressions(source)]
    if len(found) * LINES_PER_SUPPRESSION <= total:
        return []
    return [f"{len(found)} suppressions in {total} code lines, 1 per {LINES_PER_SUPPRESSION} allowed", *found]
