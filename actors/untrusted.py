"""Untrusted text, made fit to be shown to a model: what is hidden shows, what is data says so.

Issue text, comments and repository content are data, never instructions.  A
block of data begins and ends with a nonce that its author could not know, and
what a person does not see (zero-width and bidirectional characters, HTML
comments) is written out.  The nonce is a function of the job, so a resumed job
builds the same prompt byte for byte.
"""

from __future__ import annotations

import hashlib

from actors.tools.text import visible

NONCE_LENGTH = 16
NAME_LENGTH_MAX = 120


def data_block(name: str, text: str, nonce: str) -> str:
    """The text as a delimited block that `prompts/untrusted.md` tells the model to distrust."""
    shown = visible(text).replace("<!--", "&lt;!--").replace("-->", "--&gt;")
    return f"<data-{nonce} name={one_line(name)!r}>\n{shown}\n</data-{nonce}>"


def nonce(job_id: str) -> str:
    """What delimits one job's data: the job's random id is younger than any text it is given."""
    return hashlib.sha256(f"nonce/{job_id}".encode()).hexdigest()[:NONCE_LENGTH]


def one_line(text: str, length_max: int = NAME_LENGTH_MAX) -> str:
    """Visible text on one line, shortened: for progress, logs and names."""
    line = " ".join(visible(text).split())
    return line if len(line) <= length_max else line[: length_max - 1] + "…"


__all__ = ["data_block", "nonce", "one_line", "visible"]
