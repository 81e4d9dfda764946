"""The HTTP application on Ray Serve: stateless replicas over the store."""

from __future__ import annotations

import importlib
import logging
import os

from ray import serve
from ray.serve.config import HTTPOptions

from runtime.cluster.settings import ClusterSettings

logger = logging.getLogger(__name__)

APPLICATION = "troupe"
REQUESTS_MAX = 500
"""Requests in flight a replica; each open event stream holds one."""


def deploy(settings: ClusterSettings) -> None:
    """Serve the application on loopback; returns when it answers."""
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=settings.port))
    module, _, name = settings.application.partition(":")
    application = getattr(importlib.import_module(module), name)
    serve.run(application, name=APPLICATION, route_prefix="/", _local_testing_mode=False)


def from_environment() -> ClusterSettings:
    """The settings a replica was started with, else those of the environment."""
    text = os.environ.get("TROUPE_SETTINGS")
    return ClusterSettings.from_json(text) if text else ClusterSettings.from_env(os.environ)
