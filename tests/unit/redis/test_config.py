"""Settings are checked completely when they are made."""

from datetime import timedelta

import pytest

from isp_perf.errors import ConfigurationError
from isp_perf.redis import RedisPool, RedisSettings, RetryPolicy


def test_defaults_are_the_seeds_numbers():
    """Thirty connections, keep-alive, a health check every thirty seconds."""
    settings = RedisSettings()
    assert (settings.max_connections, settings.socket_keepalive, settings.health_check_interval) == (30, True, 30)
    assert settings.target is None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"url": "http://localhost"}, "url"),
        ({"url": "localhost:6379"}, "url"),
        ({"url": "redis://localhost:99999"}, "url"),
        ({"url": "redis://localhost:port"}, "url"),
        ({"url": "redis://"}, "url"),
        ({"url": "unix://"}, "url"),
        ({"url": "redis://localhost/one"}, "url"),
        ({"url": "redis://localhost?max_connections=3"}, "url"),
        ({"url": "redis://a", "nodes": "b:1"}, "url and nodes"),
        ({"nodes": "a:b"}, "nodes"),
        ({"nodes": " , "}, "nodes"),
        ({"nodes": "http://a:1"}, "nodes"),
        ({"nodes": ":6379"}, "nodes"),
        ({"nodes": "a:1/0"}, "nodes"),
        ({"sentinel": "a:1/service/db"}, "sentinel"),
        ({"sentinel": "a:1/service/0/x"}, "sentinel"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_connections": True}, "max_connections"),
        ({"in_flight": 0}, "in_flight"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"connect_timeout": -1}, "connect_timeout"),
        ({"connect_timeout": float("nan")}, "connect_timeout"),
        ({"health_check_interval": -1}, "health_check_interval"),
        ({"overflow": "drop"}, "overflow"),
        ({"on_down": "hide"}, "on_down"),
        ({"protocol": 4}, "protocol"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(settings, name):
    """The error names the setting, and says rule and fix."""
    with pytest.raises(ConfigurationError) as caught:
        RedisSettings(**settings)
    assert caught.value.setting == name
    assert caught.value.rule
    assert caught.value.fix


@pytest.mark.parametrize("policy", [{"attempts": -1}, {"base": 0}, {"base": 2, "maximum": 1}])
def test_a_wrong_retry_policy_is_refused(policy):
    """Attempts and waits outside their range are refused when the policy is made."""
    with pytest.raises(ConfigurationError):
        RetryPolicy(**policy)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "redis://user:hunter2@localhost:x"},
        {"url": "rediss://:hunter2@h:1/db"},
        {"url": "redis://h:1?ssl_password=hunter2&nonsense=1"},
        {"nodes": "user:hunter2@a:b"},
        {"sentinel": "rediss://user:hunter2@a:1/s/x"},
        {"url": "redis:hunter2@h"},
    ],
)
def test_no_error_shows_a_password(settings):
    """Whatever is wrong with a URL, the message hides its password."""
    with pytest.raises(ConfigurationError) as caught:
        RedisSettings(**settings)
    assert "hunter2" not in f"{caught.value} {caught.value!r}"


def test_repr_hides_the_password():
    """Settings, pool and target may be logged."""
    settings = RedisSettings(url="redis://user:hunter2@h:1/2?ssl_password=hunter2")
    assert "hunter2" not in f"{settings!r} {RedisPool(settings)!r} {settings.target!r}"
    assert "h:1/2" in repr(settings)


def test_a_url_is_taken_apart():
    """User, password, host, port, database and TLS come from the URL, decoded."""
    target = RedisSettings(url="rediss://us%40er:p%2Fw@[::1]:7000/3?client_name=web").target
    assert (target.username, target.password, target.db, target.tls) == ("us@er", "p/w", 3, True)
    assert (target.addresses[0].host, target.addresses[0].port) == ("::1", 7000)
    assert target.options == {"client_name": "web"}
    unix = RedisSettings(url="unix:///run/redis.sock?db=4").target
    assert (unix.path, unix.db, unix.addresses) == ("/run/redis.sock", 4, ())


def test_lists_of_nodes_and_sentinels_are_taken_apart():
    """Default ports, login and service are read from the seed's list form."""
    nodes = RedisSettings(nodes=["a", "b:7000"]).target
    assert nodes.kind == "cluster"
    assert [(item.host, item.port) for item in nodes.addresses] == [("a", 6379), ("b", 7000)]
    watched = RedisSettings(sentinel="rediss://u:p@s1,s2:1/main/2").target
    assert (watched.kind, watched.service, watched.db, watched.tls) == ("sentinel", "main", 2, True)
    assert (watched.username, watched.password) == ("u", "p")
    assert RedisSettings(sentinel="s1").target.service == "mymaster"


def test_the_environment_is_read_and_empty_is_unset():
    """REDIS_URL wins alone; an empty variable counts as none; two of them are an error that names both."""
    assert RedisSettings.from_env({"REDIS_URL": "redis://h:1", "REDIS_CLUSTER_NODES": ""}).target.kind == "single"
    assert RedisSettings.from_env({"REDIS_CLUSTER_NODES": "a:1,b:2"}).target.kind == "cluster"
    assert RedisSettings.from_env({"REDIS_SENTINELS": "a:1"}).target.kind == "sentinel"
    assert RedisSettings.from_env({"REDIS_URL": " "}).target is None
    with pytest.raises(ConfigurationError) as caught:
        RedisSettings.from_env({"REDIS_URL": "redis://h:1", "REDIS_CLUSTER_NODES": "a:1"})
    assert caught.value.setting == "REDIS_URL and REDIS_CLUSTER_NODES"


def test_durations_may_be_timedeltas():
    """A timedelta is turned into seconds once."""
    assert RedisSettings(timeout=timedelta(milliseconds=200)).timeout == 0.2


def test_a_cluster_in_the_environment_has_login_and_tls_once():
    """REDIS_CLUSTER_NODES names seeds; what stands before the first one holds for all of them."""
    settings = RedisSettings.from_env({"REDIS_CLUSTER_NODES": "rediss://user:p%40ss@a:7000, b", "REDIS_URL": " "})
    target = settings.target
    assert (target.kind, target.tls, target.username, target.password) == ("cluster", True, "user", "p@ss")
    assert [(address.host, address.port) for address in target.addresses] == [("a", 7000), ("b", 6379)]
    assert "p%40ss" not in repr(settings)
