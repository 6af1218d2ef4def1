"""Which limits of the settings a run has: those of its provider, and those of its model. The lowest figure counts. Pure."""

from __future__ import annotations

import msgspec

from headrace.settings.limit_settings import LimitConfig
from headrace.settings.settings import Settings
from headrace.text.model_names import fits

_FIGURES = LimitConfig.__struct_fields__


class ConfiguredLimits:
    """The tables ``[limits.…]``, and the limits in ``[providers.…]``, which are limits of the provider too."""

    def __init__(self, settings: Settings) -> None:
        self._of_provider: dict[str, LimitConfig] = {}
        # By provider: patterns of models with their limits.
        self._of_models: dict[str, list[tuple[str, LimitConfig]]] = {}
        for name, provider in settings.providers.items():
            self._add_provider(name, LimitConfig(**{figure: getattr(provider, figure) for figure in _FIGURES}))
        for name, limits in settings.limits.items():
            provider_name, separator, model = name.partition("/")
            if separator:
                self._of_models.setdefault(provider_name, []).append((model, limits))
            else:
                self._add_provider(name, limits)

    def __bool__(self) -> bool:
        """Return whether anything is limited."""
        return bool(self._of_provider or self._of_models)

    def of_provider(self, provider: str) -> LimitConfig | None:
        """Return the limits of all models of a provider together; ``None`` for none."""
        return self._of_provider.get(provider)

    def of_family(self, provider: str, family: str) -> LimitConfig | None:
        """Return the limits of a model family; ``None`` for none. Each family that a pattern fits has them for itself."""
        found: LimitConfig | None = None
        for pattern, limits in self._of_models.get(provider, ()):
            if fits(pattern, family):
                found = lowest(found, limits)
        return found

    def _add_provider(self, name: str, limits: LimitConfig) -> None:
        if limits != LimitConfig():
            self._of_provider[name] = lowest(self._of_provider.get(name), limits)


def lowest(one: LimitConfig | None, other: LimitConfig) -> LimitConfig:
    """Return the lower figure of each kind."""
    if one is None:
        return other
    figures = {
        name: min((figure for figure in pair if figure is not None), default=None)
        for name, pair in zip(
            _FIGURES, zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True), strict=True
        )
    }
    return LimitConfig(**figures)
