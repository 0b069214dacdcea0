"""Peer batching: touch an attribute of one of N objects that one query returned, and it is loaded for all N.

The hook sees every lazy load on its way to the database. It answers it from a batch only when the batch is surely what
N lazy loads would have given; everything else goes the plain way: objects being deleted or flushed, keys changed and
not yet written, lists with pending appends, lists over a table that may pair the same rows twice, shards, locks, user
refreshes. A batch is run by SQLAlchemy's own select-in loader, with the options, criteria and path of the lazy load.
"""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Mapper, ORMExecuteState, RelationshipProperty, Session
from sqlalchemy.orm.collections import collection_adapter

from isp_perf.queries._compat import (
    PEER_MARK,
    autoflush,
    flushes,
    has_pending,
    is_flushing,
    is_post_load,
    load_relationship,
    marked,
    refresh_only,
    refreshing,
    result_of,
    target_keys,
    uses_identity,
)
from isp_perf.queries._facts import among, key_attributes, pairs_once
from isp_perf.queries._groups import peers_of
from isp_perf.queries._kinds import is_relationship
from isp_perf.queries._stats import QueryStats
from isp_perf.queries._turns import in_turn, plainly

__all__ = ["Batching"]

_CHUNK = 5000
_FEWEST = 2
_SWITCH = "isp_batching"


class Batching:
    """The hook on one factory's or engine's sessions.

    Args:
        stats: the counters to count in.
        bind: only sessions with this bind are served; ``None``: every session the hook is put on.
    """

    __slots__ = ("__weakref__", "_bind", "_stats")

    def __init__(self, stats: QueryStats, bind: Any = None) -> None:
        self._stats = stats
        self._bind = bind

    def __call__(self, execution: ORMExecuteState) -> Any:
        """Mark a query, or answer a lazy load; ``None`` lets SQLAlchemy go on."""
        if not (execution.is_select and execution.is_orm_statement) or not self._serves(execution):
            return None
        state = execution.lazy_loaded_from
        if state is not None:
            return self._relationship(execution, state)
        if execution.is_column_load:
            return self._columns(execution)
        if not execution.is_relationship_load:
            execution.statement = marked(execution.statement)
        return None

    def _serves(self, execution: ORMExecuteState) -> bool:
        if self._bind is not None and getattr(execution.session.bind, "engine", None) is not self._bind:
            return False
        return execution.execution_options.get(_SWITCH) != "off"

    # ---- relationships -----------------------------------------------------------------------------------------------

    def _relationship(self, execution: ORMExecuteState, state: Any) -> Any:
        relation = _loaded_relation(execution, state)
        if relation is None or not _Settled(relation)(state) or not pairs_once(relation):
            return None
        session, key = execution.session, relation.key
        in_turn(session, (id(state.load_options), relation), lambda: self._load(execution, relation, state))
        if key not in state.dict or not state.persistent:  # a flush on the way may have deleted it
            return plainly(execution)
        value = state.dict[key]
        if relation.uselist:
            return result_of(list(collection_adapter(value)))
        return result_of([] if value is None else [value])

    def _load(self, execution: ORMExecuteState, relation: RelationshipProperty[Any], state: Any) -> None:
        session, key = execution.session, relation.key
        if flushes(execution):
            autoflush(session)
        by_identity = uses_identity(relation)
        settled = _Settled(relation)

        def wanted(peer: Any) -> bool:
            return settled(peer) and (not by_identity or _target_is_unknown(session, relation, peer))

        peers = peers_of(session, state, wanted)
        if len(peers) >= _FEWEST and key not in state.dict:
            load_relationship(execution, relation, peers)
            self._stats.batches += 1
            self._stats.peers += len(peers)

    # ---- expired and deferred columns --------------------------------------------------------------------------------

    def _columns(self, execution: ORMExecuteState) -> Any:
        found = refreshing(execution)
        if found is None:
            return None
        state, names = found
        mapper: Mapper[Any] = state.manager.mapper
        columns = names.intersection(mapper.column_attrs.keys())
        if not (columns and _may_batch(execution, state) and _tells_kind(mapper)):
            return None
        key = (id(state.load_options), mapper, columns)
        in_turn(execution.session, key, lambda: self._refresh(execution, state, columns))
        loaded = columns <= state.dict.keys() and state.persistent
        return result_of([state.obj()]) if loaded else plainly(execution)

    def _refresh(self, execution: ORMExecuteState, state: Any, columns: frozenset[str]) -> None:
        session, mapper = execution.session, state.manager.mapper
        if flushes(execution):
            autoflush(session)

        def wanted(peer: Any) -> bool:
            return peer.manager.mapper is mapper and not peer.key[2] and not columns <= peer.dict.keys()

        peers = peers_of(session, state, wanted)
        if len(peers) < _FEWEST or columns <= state.dict.keys():
            return
        keys = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
        statement = refresh_only(select(mapper.class_), columns | _needed(mapper))
        settings = {"isp_part": True, "autoflush": False, _SWITCH: "off"}
        for start in range(0, len(peers), _CHUNK):
            asked = among(keys, [peer.key[1] for peer in peers[start : start + _CHUNK]])
            session.scalars(statement.where(asked), execution_options=settings).unique().all()
        self._stats.batches += 1
        self._stats.peers += len(peers)


# ---- when a batch is surely right ------------------------------------------------------------------------------------


def _may_batch(execution: ORMExecuteState, state: Any) -> bool:
    """Whether the load is an ordinary one of a persistent, unsharded object that belongs to a group."""
    return (
        state.key is not None
        and not state.key[2]
        and PEER_MARK in state.load_options
        and not is_flushing(execution.session)
        and not execution.execution_options.get("populate_existing")
        and not is_post_load(execution)
    )


def _loaded_relation(execution: ORMExecuteState, state: Any) -> RelationshipProperty[Any] | None:
    """Return the relationship that is being loaded in the ordinary way of its object's statement, if it is."""
    path = execution.loader_strategy_path
    relation: Any = None if path is None else path.path[-1]
    if path is None or not is_relationship(relation) or not _may_batch(execution, state):
        return None
    return relation if path.path == state.load_path[relation].path else None


def _tells_kind(mapper: Mapper[Any]) -> bool:
    """Whether rows of a polymorphic class carry their discriminator in an attribute, so that it can be asked for."""
    return mapper.polymorphic_on is None or mapper.polymorphic_on in mapper.columns.values()


def _needed(mapper: Mapper[Any]) -> set[str]:
    """Return the attributes without which a row cannot be given to its object."""
    kind = [] if mapper.polymorphic_on is None else [mapper.polymorphic_on]
    return key_attributes(mapper, [*mapper.primary_key, *kind])


class _Settled:
    """Whether nothing in memory stands between an object and what the database says about a relationship.

    Args:
        relation: the relationship, as the object that asks has it.
    """

    __slots__ = ("_locals", "_relation")

    def __init__(self, relation: RelationshipProperty[Any]) -> None:
        self._relation = relation
        self._locals: dict[Mapper[Any], set[str] | None] = {}

    def __call__(self, state: Any) -> bool:
        """Answer for the object of ``state``."""
        key = self._relation.key
        if state.key[2] or key in state.dict or has_pending(state, key):
            return False
        mapper = state.manager.mapper
        if mapper not in self._locals:
            self._locals[mapper] = self._names(mapper)
        names = self._locals[mapper]
        return names is not None and not names & state.committed_state.keys()

    def _names(self, mapper: Mapper[Any]) -> set[str] | None:
        """Return the attributes that hold the parent's side of the join; ``None`` for a class that has another."""
        relation = self._relation
        if mapper.attrs.get(relation.key) is not relation or not mapper.isa(relation.parent):
            return None
        return key_attributes(mapper, relation.local_columns)


def _target_is_unknown(session: Session, relation: RelationshipProperty[Any], state: Any) -> bool:
    """Whether a to-one must ask the database: it has a key, and the identity map does not hold its target."""
    key = target_keys(relation, state)
    return key is not None and relation.mapper.identity_key_from_primary_key(key) not in session.identity_map
