"""An error of getaddrinfo, a libc -> the words that applications print for it."""

from __future__ import annotations

from collections.abc import Mapping

from probe.clients.steps import Answer
from probe.model import Fate

GLIBC = {
    "EAI_AGAIN": "Temporary failure in name resolution",
    "EAI_NONAME": "Name or service not known",
    "EAI_NODATA": "No address associated with hostname",
}
"""sysdeps/posix/gai_strerror-strs.h."""
MUSL = {
    "EAI_AGAIN": "Try again",
    "EAI_NONAME": "Name does not resolve",
    "EAI_NODATA": "Name has no usable address",
    "EAI_FAIL": "Non-recoverable error",
}
"""src/network/gai_strerror.c."""


def unanswered(code: str, words: Mapping[str, str]) -> Answer:
    """What getaddrinfo returns without addresses."""
    fate = Fate.NOT_FOUND if code in ("EAI_NONAME", "EAI_NODATA") else Fate.FAILED
    return Answer(fate, code=code, error=words[code])
