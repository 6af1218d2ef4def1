"""Reads the settings again in a running broker, and hands the limits on. The supervisor has checked the settings before."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from headrace.errors import ConfigurationError
from headrace.settings.settings import Settings, load_settings

logger = logging.getLogger(__name__)


class SettingsReload:
    """Hands the settings on to ``configure`` when they were read again."""

    def __init__(self, configure: Callable[[Settings], None]) -> None:
        self._configure = configure

    def reload(self) -> None:
        """Read the settings. If they cannot be used, the limits stay as they are."""
        try:
            settings = load_settings(os.environ)
        except ConfigurationError as error:
            logger.error("limits are not read again", extra={"reason": str(error)})  # noqa: TRY400 - the text says it all
            return
        self._configure(settings)
        logger.info("limits were read again")
