"""Which loaded objects are peers: those of one execution, found without a cost per row.

SQLAlchemy keeps on every object the tuple of options of the statement that loaded it, and makes that tuple anew for
each execution. Its identity is the group. The index of a session's groups is built from the identity map when an object
is asked for that it does not know, and holds states only, which keep no object alive.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy.inspection import inspect
from sqlalchemy.orm import Session

from isp_perf.queries._compat import PEER_MARK

__all__ = ["peers_of"]

_INDEX = "isp_perf.queries.peers"


def peers_of(session: Session, asker: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """Return the states of the objects that share the asker's group and that are ``wanted``, the asker first.

    Only living, persistent objects of this session count, and none that is about to be deleted; there are no peers
    at all if the asker is none of these.
    """
    index: dict[int, dict[Any, None]] = session.info.get(_INDEX, {})
    members = index.get(id(asker.load_options), {})
    if asker not in members:
        session.info[_INDEX] = index = _built(session)
        members = index.get(id(asker.load_options), {})
    deleted = {inspect(item) for item in session.deleted}
    if asker in deleted or not asker.persistent:
        return []
    return [asker, *(state for state in members if _alive(state, asker, deleted) and wanted(state))]


def _built(session: Session) -> dict[int, dict[Any, None]]:
    index: dict[int, dict[Any, None]] = {}
    for state in session.identity_map.all_states():
        options = state.load_options
        if PEER_MARK in options:
            index.setdefault(id(options), {})[state] = None
    return index


def _alive(state: Any, asker: Any, deleted: set[Any]) -> bool:
    return (
        state is not asker
        and state.load_options is asker.load_options
        and state.session_id == asker.session_id
        and state.obj() is not None
        and state.persistent
        and state not in deleted
        and state.load_path == asker.load_path
    )
