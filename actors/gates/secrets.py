"""Gates `secrets` and `hidden_text`: what may not enter a repository unseen.

Only added lines are looked at, so a secret that was there before blocks
nobody.  A key of a known form is refused; a value that merely looks random
needs a person.  A finding names the kind and the place and never repeats the
value: findings travel to logs, prompts and pull requests.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

from actors.gates import paths
from actors.gates.candidate import Candidate, Change, Objection, object_to
from actors.gates.verdicts import result
from actors.records import GateResult

PIECE_LENGTH: Final = 4_096
"""Long lines are looked at in pieces, so that one line can't make a pattern slow."""
PIECE_OVERLAP: Final = 256
OBJECTIONS_MAX: Final = 200

_KEYS: Final = tuple(
    (kind, re.compile(expression))
    for kind, expression in (
        ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
        ("a private key", r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"),
        ("a GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{30,255}\b"),
        ("a GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{30,255}\b"),
        ("a GitLab token", r"\bgl(?:pat|dt|rt|ptt|agent)-[A-Za-z0-9_-]{20,255}\b"),
        ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,255}\b"),
        ("a Slack webhook", r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/\w{16,}"),
        ("a Stripe key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}\b"),
        ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}\b"),
        ("an Anthropic key", r"\bsk-ant-[A-Za-z0-9_-]{20,255}"),
        ("an OpenAI key", r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{32,255}"),
        ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("a PyPI token", r"\bpypi-AgE[A-Za-z0-9_-]{50,255}"),
        ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}"),
        ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{30,255}\b"),
        ("a signed token", r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[\w-]{10,}"),
    )
)
_SAMPLE_KEY: Final = re.compile(r"(?i)example|sample|dummy|placeholder|redacted|xxxx|0000|1234567")
_ADDRESS: Final = re.compile(
    r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"]{1,80}:([^\s/@'\"]{3,80})@"
)
_NAMED: Final = re.compile(
    r"""(?i)(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|"""
    r"""private[_-]?key|credential|auth[_-]?key)[\w-]{0,30}["']?\s{0,5}(?::|=>|:?=)\s{0,5}"""
    r"""["'`]([^"'`\s]{8,200})["'`]"""
)
_NAMED_BARE: Final = re.compile(
    r"(?i)^\s{0,40}(?:export\s+)?[\w.-]{0,60}(?:password|passwd|secret|token|api_?key|access_?key)"
    r"[\w-]{0,30}\s{0,5}[:=]\s{0,5}([^\s\"'#]{8,200})\s*$"
)
_BARE_FILES: Final = (
    ".env*",
    "*.env",
    "*.properties",
    "*.ini",
    "*.cfg",
    "*.conf",
    "*.y*ml",
    "*.toml",
)
_QUOTED: Final = re.compile(r"""["'`]([A-Za-z0-9+/_=-]{32,512})["'`]""")
_HEX: Final = re.compile(r"[0-9a-fA-F-]+")
_PLACEHOLDER: Final = re.compile(
    r"(?i)example|sample|dummy|fake|placeholder|change.?me|your|redacted|xxxx|\*\*\*|\.\.\.|"
    r"insert|todo|test|localhost|^<.*>$|^\$|\$\{|\{\{|%\(|process\.env|environ|getenv|os\."
)
_CREDENTIAL_FILES: Final = (
    ".env",
    ".env.*",
    "id_rsa",
    "id_ed25519",
    "id_ecdsa",
    "*.pem",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.key",
    ".netrc",
    ".pypirc",
    ".npmrc",
    ".git-credentials",
    "credentials.json",
)
_CREDENTIAL_SAMPLES: Final = ("*.example", "*.sample", "*.template", "*.dist")

_DIRECTION: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_INVISIBLE: Final = re.compile(
    "[\u00ad\u180e\u200b-\u200d\u2060-\u2064\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_BOM: Final = "\ufeff"


def secrets(candidate: Candidate) -> GateResult:
    """Whether the added lines are free of keys, tokens and passwords."""
    found = list(islice(_secrets(candidate), OBJECTIONS_MAX))
    return result("secrets", found, "no secret in the added lines")


def _secrets(candidate: Candidate) -> Iterator[Objection]:
    for change in candidate.changes:
        yield from _in_name(change)
        for number, line in candidate.added_lines(change):
            yield from _in_line(change.path, number, line)


def _in_name(change: Change) -> Iterator[Objection]:
    if change.status[:1] not in ("A", "R", "C"):
        return
    if paths.matching(change.path, _CREDENTIAL_SAMPLES):
        return
    if paths.matching(change.path, _CREDENTIAL_FILES):
        yield object_to("needs_human", "files of this name hold credentials", change.path)


def _in_line(path: str, number: int, line: str) -> Iterator[Objection]:
    for piece in _pieces(line):
        kind = next((kind for kind, form in _KEYS if _is_key(form, piece)), None)
        if kind:
            yield object_to("failed", f"looks like {kind}", path, number)
            return
        why = _suspicion(path, piece)
        if why:
            yield object_to("needs_human", why, path, number)
            return


def _is_key(form: re.Pattern[str], piece: str) -> bool:
    return any(not _SAMPLE_KEY.search(match.group()) for match in form.finditer(piece))


def _suspicion(path: str, piece: str) -> str | None:
    named = [match.group(1) for match in _NAMED.finditer(piece)]
    if paths.matching(path, _BARE_FILES):
        named += [match.group(1) for match in _NAMED_BARE.finditer(piece)]
    if any(_looks_secret(match.group(1)) for match in _ADDRESS.finditer(piece)):
        return "a password in an address"
    if any(_looks_secret(value) for value in named):
        return "a secret's name with a value that is no placeholder"
    if not paths.matching(path, paths.LOCKS):
        for match in _QUOTED.finditer(piece):
            value = match.group(1)
            if entropy(value) >= 4.5 and not _HEX.fullmatch(value) and _mixed(value):
                return "a long random value"
    return None


def _looks_secret(value: str) -> bool:
    return not _PLACEHOLDER.search(value) and entropy(value) >= 2.8 and _mixed(value)


def _mixed(value: str) -> bool:
    """Letters and digits together: words and numbers alone are no secrets."""
    return any(char.isdigit() for char in value) and any(char.isalpha() for char in value)


def entropy(text: str) -> float:
    """Bits a character, from the text's own frequencies; 0 for an empty text."""
    total = len(text)
    counts = Counter(text).values()
    return -sum(count / total * math.log2(count / total) for count in counts)


def _pieces(line: str) -> Iterator[str]:
    step = PIECE_LENGTH - PIECE_OVERLAP
    for start in range(0, max(len(line) - PIECE_OVERLAP, 1), step):
        yield line[start : start + PIECE_LENGTH]


def hidden_text(candidate: Candidate) -> GateResult:
    """Whether the added lines read as they run: no invisible or reordering characters."""
    found = list(islice(_hidden(candidate), OBJECTIONS_MAX))
    return result("hidden_text", found, "the added lines read as they run")


def _hidden(candidate: Candidate) -> Iterator[Objection]:
    for change in candidate.changes:
        if change.binary:
            continue
        for number, line in candidate.added_lines(change):
            if _DIRECTION.search(line):
                why = "direction characters: the line does not run as it reads"
                yield object_to("failed", why, change.path, number)
            elif _INVISIBLE.search(line) or _BOM in line[number == 1 :]:
                yield object_to("needs_human", "invisible characters", change.path, number)
