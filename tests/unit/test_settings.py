"""Settings: one record, every mistake at once, no secret in sight, and nothing but one kind of error."""

import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.errors import ConfigurationError
from isp_perf.settings import Settings, SettingsError

NAMES = ["NAMESPACE", "SCHEMA", "CACHE_MAX_ENTRIES", "CACHE_TTL", "COMPRESSION", "COMPRESSION_MINIMUM_SIZE", "OPS"]
NAMES += ["CACHE_AUDIT", "SECRET", "SHARE_CIRCUITS", "SLOW_MS", "NAMING"]
VARIABLES = [f"ISP_PERF_{name}" for name in NAMES]
VARIABLES += ["REDIS_URL", "REDIS_CLUSTER_NODES", "REDIS_SENTINELS", "DATABASE_URL"]


def test_an_empty_environment_gives_the_defaults():
    """Nothing set, and everything set to nothing, are the defaults: no Redis, the cache in memory."""
    assert Settings.from_env({}) == Settings.from_env(dict.fromkeys(VARIABLES, " ")) == Settings()
    assert Settings().redis.target is None


def test_every_variable_is_read():
    """Each variable reaches its field, converted."""
    settings = Settings.from_env(
        {
            "REDIS_URL": "redis://localhost:6379/0",
            "DATABASE_URL": "postgresql://u:p@db/x",
            "ISP_PERF_NAMESPACE": "suporte",
            "ISP_PERF_SCHEMA": "7",
            "ISP_PERF_CACHE_MAX_ENTRIES": "50",
            "ISP_PERF_CACHE_TTL": "1.5",
            "ISP_PERF_CACHE_AUDIT": "0.01",
            "ISP_PERF_COMPRESSION": "off",
            "ISP_PERF_COMPRESSION_MINIMUM_SIZE": "0",
            "ISP_PERF_OPS": "/ops",
            "ISP_PERF_SECRET": "a-key-of-sixteen-bytes, an-older-key-of-as-many",
            "ISP_PERF_SHARE_CIRCUITS": "on",
            "ISP_PERF_SLOW_MS": "200",
            "ISP_PERF_NAMING": "micrometer, resilience4j",
        }
    )
    assert settings.naming == ("micrometer", "resilience4j")
    assert settings.secret == (b"a-key-of-sixteen-bytes", b"an-older-key-of-as-many")
    assert settings.share_circuits
    assert settings.slow_ms == 200
    assert settings.redis.url == "redis://localhost:6379/0"
    assert settings.database_url == "postgresql://u:p@db/x"
    assert (settings.namespace, settings.schema, settings.ops) == ("suporte", "7", "/ops")
    assert (settings.cache_max_entries, settings.cache_ttl, settings.cache_audit) == (50, 1.5, 0.01)
    assert (settings.compression, settings.compression_minimum_size) == (False, 0)


def test_seven_mistakes_are_seven_messages():
    """Mistakes of form, of range and of several features are reported together, each with variable, value and fix."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(
            {
                "REDIS_URL": "http://localhost",
                "ISP_PERF_CACHE_MAX_ENTRIES": "many",
                "ISP_PERF_CACHE_TTL": "-1",
                "ISP_PERF_CACHE_AUDIT": "1.5",
                "ISP_PERF_COMPRESSION": "perhaps",
                "ISP_PERF_OPS": "ops",
                "ISP_PERF_SLOW_MS": "-1",
            }
        )
    error = caught.value
    assert isinstance(error, ConfigurationError)
    named = {problem.setting for problem in error.problems}
    assert named == {
        "REDIS_URL",
        "ISP_PERF_CACHE_MAX_ENTRIES",
        "ISP_PERF_CACHE_TTL",
        "ISP_PERF_CACHE_AUDIT",
        "ISP_PERF_COMPRESSION",
        "ISP_PERF_OPS",
        "ISP_PERF_SLOW_MS",
    }
    lines = str(error).splitlines()
    assert lines[0] == "7 wrong settings:"
    assert len(lines) == 8
    assert "'many'" in str(error)
    assert "write /ops" in str(error)


@pytest.mark.parametrize(
    "url", ["postgresql+asyncpg://ana:s3cret@db:5432/support?password=s3cret", "s3cret", "//:s3cret", "x://[s3cret"]
)
def test_passwords_are_masked(url):
    """Neither ``as_dict`` nor ``repr`` shows a password, however the URL is written."""
    settings = Settings.from_env({"DATABASE_URL": url, "REDIS_URL": "redis://:s3cret@localhost:6379/0"})
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings.as_dict())


def test_a_masked_url_still_says_where():
    """Scheme, user, host and path stay readable."""
    masked = Settings(database_url="postgresql://ana:s3cret@db:5432/support").as_dict()["database_url"]
    assert masked == "postgresql://ana:***@db:5432/support"


def test_wrong_secrets_do_not_reach_the_message():
    """A malformed URL with a password is reported without it."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"REDIS_URL": "redis://:s3cret@localhost:not-a-port/0"})
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(VARIABLES), st.text(max_size=20)))
def test_reading_never_raises_anything_else(environ):
    """Whatever the variables hold, the answer is settings or a SettingsError."""
    try:
        settings = Settings.from_env(environ)
    except SettingsError:
        return
    assert settings.as_dict()


def test_fields_are_checked_at_construction():
    """Settings made by hand obey the same rules."""
    with pytest.raises(SettingsError, match="namespace"):
        Settings(namespace="a:b", cache_max_entries=0)


def test_a_file_never_wins_over_the_environment(tmp_path, monkeypatch):
    """Variables of a .env file are read if python-dotenv is there, and a real variable comes first."""
    module = types.ModuleType("dotenv")
    module.__spec__ = types.SimpleNamespace()
    module.dotenv_values = lambda path: {"ISP_PERF_NAMESPACE": "file", "ISP_PERF_SCHEMA": "9", "EMPTY": None}
    monkeypatch.setitem(sys.modules, "dotenv", module)
    monkeypatch.setenv("ISP_PERF_NAMESPACE", "real")
    path = tmp_path / ".env"
    assert Settings.from_env(dotenv=str(path)).schema == "1"
    path.write_text("")
    settings = Settings.from_env(dotenv=str(path))
    assert (settings.namespace, settings.schema) == ("real", "9")


def test_a_short_key_is_refused_and_not_shown():
    """A key below 16 bytes is a mistake, and no part of any key is ever printed."""
    with pytest.raises(SettingsError, match="ISP_PERF_SECRET") as caught:
        Settings.from_env({"ISP_PERF_SECRET": "hunter2"})
    assert "hunter2" not in str(caught.value)
    settings = Settings(secret=(b"correct horse battery",))
    assert "horse" not in repr(settings)
    assert settings.as_dict()["secret"] == "***"


def test_circuits_cannot_be_shared_without_redis():
    """Sharing asks for a server."""
    with pytest.raises(SettingsError, match="SHARE_CIRCUITS"):
        Settings.from_env({"ISP_PERF_SHARE_CIRCUITS": "1"})
