"""Briefs as pages of plain text."""

from briefs.export import export
from briefs.model import Brief, Section

__all__ = ["Brief", "Section", "export"]
