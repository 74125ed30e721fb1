"""Pictures within a JSON body, in base64: a picture costs by its size on the screen, and not by its bytes.

The same rules as the proxy's: `crates/proxy/src/pictures.rs`.
"""

from __future__ import annotations

import re

#: Bytes of text that make a token, where nobody has counted them.
_BYTES_OF_TOKEN = 4
#: Of one picture at most, but for models that multiply the number and divide the price: Anthropic's
#: largest are 4,784 (https://docs.claude.com/en/docs/build-with-claude/vision).
_MOST_TOKENS = 5_000
#: Smaller bodies have no picture that matters.
_SMALL = 20_000
#: A data URL, or how PNG, JPEG, GIF and WebP begin in base64. A slash may be escaped.
_PICTURE = re.compile(
    rb"(data:image\\?/[^,]*,|(?=iVBORw0KGgo|\\?/9j\\?/|R0lGOD|UklGR))[A-Za-z0-9+/=_\\-]*"
)


def tokens_in(count: int) -> int:
    return -(-count // _BYTES_OF_TOKEN)


def tokens_of(body: bytes) -> int:
    """Tokens of a JSON body before anybody has counted them: of pictures what they cost at most, a token for
    four bytes of all else."""
    if len(body) < _SMALL:
        return tokens_in(len(body))
    length = pictures = 0
    for text in body.split(b'"'):
        if _PICTURE.fullmatch(text):
            length += len(text)
            pictures += min(tokens_in(len(text)), _MOST_TOKENS)
    return tokens_in(len(body) - length) + pictures
