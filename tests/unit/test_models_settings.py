"""Settings of the model: who answers, and what never shows."""

from __future__ import annotations

import pytest

from actors.models.prices import SCRIPTED_MODEL
from actors.models.settings import ANTHROPIC_URL, CODING_MODEL, TRIAGE_MODEL, ModelSettings
from runtime.errors import SettingsError

HOME = ANTHROPIC_URL
LOCAL = "http://127.0.0.1:11434"
SCRIPT = "http://127.0.0.1:4010"


@pytest.mark.parametrize(
    ("env", "provider", "base_url"),
    [
        ({}, "none", ""),
        ({"TROUPE_SCRIPTED_URL": SCRIPT}, "scripted", SCRIPT),
        ({"ANTHROPIC_API_KEY": "k"}, "anthropic", ANTHROPIC_URL),
        ({"ANTHROPIC_API_KEY": "k", "TROUPE_SCRIPTED_URL": SCRIPT}, "anthropic", ANTHROPIC_URL),
        ({"ANTHROPIC_BASE_URL": LOCAL + "/"}, "compatible", LOCAL),
        ({"ANTHROPIC_BASE_URL": LOCAL, "TROUPE_SCRIPTED_URL": SCRIPT}, "compatible", LOCAL),
        ({"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": LOCAL}, "compatible", LOCAL),
        (
            {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": ANTHROPIC_URL},
            "anthropic",
            ANTHROPIC_URL,
        ),
        ({"ANTHROPIC_API_KEY": "  ", "ANTHROPIC_BASE_URL": ""}, "none", ""),
    ],
)
def test_a_real_model_wins_over_the_script(env, provider, base_url):
    """A user with a key would get the script's answers, or the other way round."""
    settings = ModelSettings.from_env(env)
    assert (settings.provider, settings.base_url) == (provider, base_url)
    assert settings.configured == (provider != "none")


def test_the_script_never_goes_by_a_real_models_name():
    """A scripted run would be booked, and shown, as a run of a real model."""
    settings = ModelSettings.from_env({"TROUPE_SCRIPTED_URL": SCRIPT, "TROUPE_MODEL": CODING_MODEL})
    assert {settings.model, settings.triage_model} == {SCRIPTED_MODEL}
    assert settings.price(SCRIPTED_MODEL).fictional


def test_models_are_chosen_by_name():
    """An operator's choice of model would be ignored."""
    env = {"ANTHROPIC_API_KEY": "k"}
    default = ModelSettings.from_env(env)
    assert (default.model, default.triage_model) == (CODING_MODEL, TRIAGE_MODEL)
    assert default.price(default.model) and default.price(default.triage_model)
    chosen = ModelSettings.from_env(
        {**env, "TROUPE_MODEL": "claude-sonnet-5-5", "TROUPE_TRIAGE_MODEL": "claude-haiku-4-5"}
    )
    assert (chosen.model, chosen.triage_model) == ("claude-sonnet-5-5", "claude-haiku-4-5")


def test_a_local_server_with_one_model_uses_it_for_triage_too():
    """Triage would ask a local server for a model that it does not have."""
    settings = ModelSettings.from_env({"ANTHROPIC_BASE_URL": LOCAL, "TROUPE_MODEL": "qwen"})
    assert settings.triage_model == "qwen"


def test_the_key_shows_nowhere():
    """A logged or printed settings object would give the key away."""
    settings = ModelSettings.from_env({"ANTHROPIC_API_KEY": "sk-canary"})
    assert settings.api_key == "sk-canary"
    assert "sk-canary" not in repr(settings) + str(settings.public())


@pytest.mark.parametrize("url", ["ftp://host", "localhost:80", "http://", "http://[::1"])
def test_a_url_that_is_none_is_refused_at_the_start(url):
    """The first job would fail instead of the start, and long after it."""
    with pytest.raises(SettingsError, match="ANTHROPIC_BASE_URL"):
        ModelSettings.from_env({"ANTHROPIC_BASE_URL": url})


def test_an_operator_prices_a_model_of_their_own():
    """A local model could never be used by a run with a cost limit."""
    env = {
        "ANTHROPIC_BASE_URL": LOCAL,
        "TROUPE_MODEL_PRICES": '{"free": {"input": 0, "output": 0}, '
        '"paid": {"input": 1, "output": 2, "read": 0.5}}',
    }
    settings = ModelSettings.from_env(env)
    assert settings.price("free").output == 0
    assert (settings.price("paid").write_5m, settings.price("paid").read) == (1, 0.5)
    assert settings.price("unheard-of") is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"m": 3}',
        '{"m": {"input": 1}}',
        '{"m": {"input": -1, "output": 1}}',
        '{"m": {"input": 1, "output": NaN}}',
        '{"m": {"input": 1, "output": 1, "reed": 1}}',
    ],
)
def test_prices_of_the_wrong_form_are_refused(text):
    """A typing mistake would let a run spend without a limit."""
    with pytest.raises(SettingsError, match="TROUPE_MODEL_PRICES"):
        ModelSettings.from_env({"TROUPE_MODEL_PRICES": text})
