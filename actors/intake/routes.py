"""The routes of the domain, as the composition root hands them to `create_app`."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from actors.intake import issues, reviews
from actors.intake.audit import AuditRoute
from actors.intake.settings import IntakeSettings
from actors.intake.submission import Desk
from actors.intake.webhooks import Webhooks


def routers(env: Mapping[str, str]) -> list[APIRouter]:
    """Issues, reviews and their audit trail, as the environment allows them.

    Raises:
        SettingsError: a variable can't be used.
    """
    return routes(IntakeSettings.from_env(env))


def routes(settings: IntakeSettings) -> list[APIRouter]:
    """Issues, reviews, their audit trail and webhooks under the given settings."""
    return [
        Desk(settings).router,
        issues.router,
        reviews.router,
        AuditRoute().router,
        Webhooks(settings).router,
    ]
