"""The errors of the department: what can go wrong in an agent's own work.

The docstring is the default message; constructor arguments go unchanged to
`super().__init__`, because exceptions cross Ray by pickle as `cls(*args)`.
"""

from __future__ import annotations

from runtime.errors import TroupeError


class AgentError(TroupeError):
    """An agent could not do its work."""
