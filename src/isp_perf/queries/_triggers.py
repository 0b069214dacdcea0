"""The DDL with which PostgreSQL tells of the writes of other programs."""

import re
from typing import Any, Final

from sqlalchemy import MetaData
from sqlalchemy.dialects.postgresql.base import PGDialect

from isp_perf.errors import ConfigurationError

__all__ = ["CHANNEL", "invalidation_ddl", "require_channel"]

CHANNEL: Final = "isp_perf"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_FUNCTION = """\
CREATE OR REPLACE FUNCTION {channel}_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{channel}', TG_ARGV[0]);
    RETURN NULL;
END
$$;
"""
_TRIGGER = """
DROP TRIGGER IF EXISTS {channel}_notify ON {table};
CREATE TRIGGER {channel}_notify AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {channel}_notify('{name}');
"""


def require_channel(channel: str) -> None:
    """Check that ``channel`` can be the name of a channel.

    Raises:
        ConfigurationError: it cannot.
    """
    if not _NAME.fullmatch(channel):
        rule = "a channel is named by small letters, digits and underscores, at most 63"
        raise ConfigurationError("channel", channel, rule, f"leave it out: {CHANNEL!r}")


def invalidation_ddl(metadata: MetaData, *, channel: str = CHANNEL) -> str:
    """Return the DDL that makes PostgreSQL (11 and later) tell ``listen`` of every write, whoever makes it.

    One function, and one trigger per table that runs once per statement and sends the table's name with the commit.
    Nothing is executed: put the text into a migration. A commit with NOTIFY waits for others of the same database.
    Writes that name a partition fire the triggers of that partition only; copy the trigger there.

    Args:
        metadata: the tables, but for those declared as views (``info={"isp_tables": (...)}``).
        channel: name of the channel, as for ``listen``; default ``"isp_perf"``.

    Raises:
        ConfigurationError: ``channel`` is no plain name.
    """
    require_channel(channel)
    dialect: Any = PGDialect
    quote = dialect(paramstyle="named").identifier_preparer.format_table  # others may write a percent sign twice
    parts = [_FUNCTION.format(channel=channel)]
    for table in metadata.sorted_tables:
        if "isp_tables" not in table.info:
            name = table.name.replace("'", "''")
            parts.append(_TRIGGER.format(channel=channel, table=quote(table), name=name))
    return "".join(parts)
