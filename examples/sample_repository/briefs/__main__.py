"""`python3 -m briefs brief.json`: the pages of a brief on standard output."""

from __future__ import annotations

import sys
from pathlib import Path

from briefs.export import export
from briefs.model import Brief, InvalidBriefError


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python3 -m briefs BRIEF.json", file=sys.stderr)
        return 2
    try:
        print(export(Brief.from_json(Path(arguments[0]).read_text())))
    except (OSError, InvalidBriefError) as error:
        print(f"briefs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
