"""What the controllers are told: environment variables, then KubeControllersConfiguration, then defaults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tortie.datastore.choice import reasons_against
from tortie.model.resources import KubeControllersConfigurationSpec

DEFAULT_GRACE: Final = 900.0  # seconds
DEFAULT_HEALTH_PORT: Final = 9440
DEFAULT_METRICS_PORT: Final = 9094
CONTROLLERS: Final = ("node",)

# A Go duration (time.ParseDuration): decimal numbers, each with a unit.
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LEVELS: Final = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARNING",
    "warn": "WARNING",
    "error": "ERROR",
    "fatal": "CRITICAL",
    "panic": "CRITICAL",
}


class SettingsError(Exception):
    """A setting cannot be used. The message says which, and what it may be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`grace` is in seconds; 0 switches garbage collection off. A port of 0 is not opened; an
    empty host means every address. `environment` holds the variables that were set; `unknown` the controllers
    that do not exist here."""

    grace: float
    health_port: int
    health_host: str
    metrics_port: int
    metrics_host: str
    log_level: str
    collecting: bool
    environment: Mapping[str, str]
    unknown: tuple[str, ...]


def read_settings(
    environ: Mapping[str, str], spec: KubeControllersConfigurationSpec | None = None
) -> Settings:
    """Raise SettingsError."""
    if reasons := reasons_against(environ):
        raise SettingsError(" ".join(reasons))
    spec = spec or KubeControllersConfigurationSpec()
    used: dict[str, str] = {}

    def choose(name: str, configured: str, default: str) -> tuple[str, str]:
        """The value, and where it comes from."""
        if environ.get(name):
            used[name] = environ[name]
            return environ[name], name
        return (
            (configured, "the KubeControllersConfiguration named default") if configured else (default, name)
        )

    node = spec.controllers.node
    grace = _duration(*choose("LEAK_GRACE_PERIOD", node.leak_grace_period if node else "", "15m"))
    metrics = "" if spec.prometheus_metrics_port is None else str(spec.prometheus_metrics_port)
    enabled, _source = choose("ENABLED_CONTROLLERS", "", "node")
    named = [name.strip() for name in enabled.split(",") if name.strip()]
    health = "0" if spec.health_checks == "Disabled" else ""
    return Settings(
        grace=grace,
        health_port=_port(*choose("HEALTH_PORT", health, str(DEFAULT_HEALTH_PORT))),
        health_host=choose("HEALTH_HOST", "", "")[0],
        metrics_port=_port(*choose("METRICS_PORT", metrics, str(DEFAULT_METRICS_PORT))),
        metrics_host=choose("METRICS_HOST", "", "")[0],
        log_level=_level(*choose("LOG_LEVEL", spec.log_severity_screen, "info")),
        collecting="node" in named and grace > 0,
        environment=used,
        unknown=tuple(name for name in named if name not in CONTROLLERS),
    )


def parse_duration(text: str) -> float:
    """Seconds of a Go duration such as `1h15m0.5s`; `0` needs no unit. Raise ValueError."""
    if text == "0":
        return 0.0
    if not re.fullmatch(rf"(?:{_PART.pattern})+", text):
        raise ValueError(f"{text!r} is no duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def _duration(text: str, source: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise SettingsError(
            f"The leak grace period from {source} is {text!r}; it must be a duration such as 15m or 1h30m, "
            "or 0s to collect nothing."
        ) from None


def _port(text: str, source: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise SettingsError(f"The port from {source} is {text!r}; it must be 0 (none) to 65535.")
    return int(text)


def _level(text: str, source: str) -> str:
    try:
        return _LEVELS[text.lower()]
    except KeyError:
        raise SettingsError(
            f"The log level from {source} is {text!r}; it must be one of {', '.join(_LEVELS)}."
        ) from None
