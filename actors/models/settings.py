"""Which model answers: read once from the environment, then passed along.

`provider` is decided here and nowhere else.  A key or a base URL always wins
over the script; without any of them there is no model, which is a state to
wait in and not an error.  The key never shows in a repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from actors.models.prices import PRICES, SCRIPTED_MODEL, Price, parse_prices
from runtime.errors import SettingsError

Provider = Literal["anthropic", "compatible", "scripted", "none"]
ANTHROPIC_URL = "https://api.anthropic.com"
CODING_MODEL = "claude-opus-5-5"
TRIAGE_MODEL = "claude-haiku-5-5"
DUMMY_KEY = "no-key"
"""Sent to servers that want none; the SDK refuses to send nothing."""


@dataclass(frozen=True)
class ModelSettings:
    """Where models are and which ones are used."""

    provider: Provider = "none"
    base_url: str = ""
    """Without a trailing slash; always passed to the SDK, which else reads the environment."""
    api_key: str = field(default=DUMMY_KEY, repr=False)
    model: str = CODING_MODEL
    """For code, research and review."""
    triage_model: str = TRIAGE_MODEL
    """For classification; small and cheap."""
    prices: Mapping[str, Price] = field(default_factory=lambda: PRICES, repr=False)
    """By model id; an absent model has no price."""

    @property
    def configured(self) -> bool:
        """False: jobs that need a model wait with the reason `model_not_configured`."""
        return self.provider != "none"

    def price(self, model: str) -> Price | None:
        return self.prices.get(model)

    def public(self) -> dict[str, str]:
        """What health and the console may show."""
        return {
            "provider": self.provider,
            "model": self.model if self.configured else "",
            "triageModel": self.triage_model if self.configured else "",
        }

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ModelSettings:
        """Read ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL, TROUPE_MODEL, TROUPE_TRIAGE_MODEL,
        TROUPE_MODEL_PRICES and TROUPE_SCRIPTED_URL.

        Raises:
            SettingsError: a URL that is not http(s), or prices of the wrong form.
        """
        key = env.get("ANTHROPIC_API_KEY", "").strip()
        base = _url("ANTHROPIC_BASE_URL", env)
        scripted = _url("TROUPE_SCRIPTED_URL", env)
        prices = {**PRICES, **parse_prices(env.get("TROUPE_MODEL_PRICES") or "{}")}
        provider = _provider(key, base, scripted)
        if provider == "scripted":
            # A script under a real model's name would be booked at that model's price.
            return cls(provider, scripted, DUMMY_KEY, SCRIPTED_MODEL, SCRIPTED_MODEL, prices)
        model = env.get("TROUPE_MODEL", "").strip()
        triage = env.get("TROUPE_TRIAGE_MODEL", "").strip()
        if provider == "compatible":
            # Such a server often has one model: the one named is used for both.
            triage = triage or model
        return cls(
            provider,
            base or (ANTHROPIC_URL if key else ""),
            key or DUMMY_KEY,
            model or CODING_MODEL,
            triage or TRIAGE_MODEL,
            prices,
        )


def _provider(key: str, base: str, scripted: str) -> Provider:
    if base and base != ANTHROPIC_URL:
        return "compatible"
    if key:
        return "anthropic"
    return "scripted" if scripted else "none"


def _url(name: str, env: Mapping[str, str]) -> str:
    text = env.get(name, "").strip().rstrip("/")
    if not text:
        return ""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise SettingsError(f"{name} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{name} must be an http or https URL")
    return text
