import msgspec
import pytest

from tortie.controllers.settings import SettingsError, parse_duration, read_settings
from tortie.model.resources import KubeControllersConfigurationSpec


def spec(document: dict[str, object]) -> KubeControllersConfigurationSpec:
    return msgspec.convert(document, KubeControllersConfigurationSpec)


def test_defaults() -> None:
    settings = read_settings({})
    assert (settings.grace, settings.health_port, settings.metrics_port) == (900.0, 9440, 9094)
    assert (settings.log_level, settings.collecting, settings.unknown) == ("INFO", True, ())
    assert (settings.health_host, settings.metrics_host) == ("", "")


def test_resource_is_followed_and_variables_win() -> None:
    resource = spec(
        {
            "logSeverityScreen": "Debug",
            "prometheusMetricsPort": 0,
            "healthChecks": "Disabled",
            "controllers": {"node": {"leakGracePeriod": "5m0s"}},
        }
    )
    settings = read_settings({}, resource)
    assert (settings.grace, settings.health_port, settings.metrics_port) == (300.0, 0, 0)
    assert settings.log_level == "DEBUG"
    assert read_settings({"HEALTH_HOST": "127.0.0.1"}).health_host == "127.0.0.1"
    environ = {"LEAK_GRACE_PERIOD": "1h", "LOG_LEVEL": "warn", "METRICS_PORT": "9999", "HOME": "/root"}
    settings = read_settings(environ, resource)
    assert (settings.grace, settings.metrics_port, settings.log_level) == (3600.0, 9999, "WARNING")
    assert settings.environment == {"LEAK_GRACE_PERIOD": "1h", "LOG_LEVEL": "warn", "METRICS_PORT": "9999"}


def test_nothing_is_collected_without_the_node_controller_or_with_a_grace_period_of_zero() -> None:
    settings = read_settings({"ENABLED_CONTROLLERS": "policy, namespace"})
    assert not settings.collecting
    assert settings.unknown == ("policy", "namespace")
    assert not read_settings({"LEAK_GRACE_PERIOD": "0s"}).collecting


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"LEAK_GRACE_PERIOD": "15"}, "LEAK_GRACE_PERIOD is '15'; it must be a duration such as 15m"),
        ({"METRICS_PORT": "70000"}, "METRICS_PORT is '70000'; it must be 0"),
        ({"HEALTH_PORT": "-1"}, "HEALTH_PORT is '-1'"),
        ({"DATASTORE_TYPE": "etcdv3"}, "DATASTORE_TYPE is 'etcdv3'; it must be kubernetes or unset"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL is 'loud'; it must be one of debug"),
    ],
)
def test_what_cannot_be_used_is_refused_with_name_value_and_remedy(
    environ: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        read_settings(environ)


def test_resource_is_named_when_it_is_wrong() -> None:
    with pytest.raises(SettingsError, match="KubeControllersConfiguration named default is 'soon'"):
        read_settings({}, spec({"controllers": {"node": {"leakGracePeriod": "soon"}}}))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15m", 900), ("1h30m0s", 5400), ("0", 0), ("0s", 0), ("1.5s", 1.5), ("250ms", 0.25), (".5h", 1800)],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "15", "m", "1d", "-1m", "1m x", "1 m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)
