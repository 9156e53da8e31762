"""State in Redis, for a fleet. What has to be atomic is a Lua script; docs/state.md says what a failover can lose."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..api.orders import Order, Orders
from ..exceptions import ConfigurationError
from ..setting_values import shown
from .base import KEPT_SECONDS, MAX_HINTS, Approval, Snapshot, StateError, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["RedisState"]

# The fields of a row that change; the others stand in its JSON.
_MUTABLE: Final = ("expires_at", "status", "reason", "process", "claimed_by", "claimed_at", "outcome", "entry")
_GIVEN_BACK: Final = "given_back"
_APPLIED_SECONDS: Final = 30 * 86_400
_encode: Final = msgspec.json.encode
_decode_approval: Final = msgspec.json.Decoder(Approval).decode
_decode_order: Final = msgspec.json.Decoder(Order).decode

# A row is a hash `approval:<key>`; `open:<sharing>` names the open row of identical requests; `hints` is a sorted set
# of `<hint>:<key>` by expiry; `unsettled:<process>` a set of keys. Every key begins with ARGV[1], whose braces keep
# them in one slot of a cluster.
_SCRIPTS: Final = {
    "hold": """
local open = redis.call('GET', ARGV[1] .. 'open:' .. ARGV[4])
if open then
  local row = ARGV[1] .. 'approval:' .. open
  local seen = redis.call('HMGET', row, 'claimed_by', 'expires_at')
  if seen[1] == '' and tonumber(seen[2]) > tonumber(ARGV[2]) then return redis.call('HGETALL', row) end
end
local row = ARGV[1] .. 'approval:' .. ARGV[3]
redis.call('HSET', row, 'json', ARGV[7], 'sharing', ARGV[4], 'hint', ARGV[5], 'expires_at', ARGV[6], 'status', ARGV[9],
  'reason', '', 'process', '', 'claimed_by', '', 'claimed_at', '0', 'outcome', '', 'entry', '')
redis.call('EXPIRE', row, ARGV[8])
redis.call('SET', ARGV[1] .. 'open:' .. ARGV[4], ARGV[3], 'EX', ARGV[8])
redis.call('ZREMRANGEBYSCORE', ARGV[1] .. 'hints', '-inf', ARGV[2])
redis.call('ZADD', ARGV[1] .. 'hints', ARGV[6], ARGV[5] .. ':' .. ARGV[3])
return redis.call('HGETALL', row)
""",
    "note": """
local row = ARGV[1] .. 'approval:' .. ARGV[2]
local seen = redis.call('HMGET', row, 'claimed_by', 'status')
if seen[1] == '' and seen[2] ~= 'denied' then redis.call('HSET', row, 'status', ARGV[3], 'reason', ARGV[4]) end
return 1
""",
    "drop": """
local row = ARGV[1] .. 'approval:' .. ARGV[2]
local seen = redis.call('HMGET', row, 'claimed_by', 'hint')
if seen[1] == '' then
  redis.call('HSET', row, 'expires_at', ARGV[3])
  redis.call('ZREM', ARGV[1] .. 'hints', seen[2] .. ':' .. ARGV[2])
end
return 1
""",
    "claim": """
local row = ARGV[1] .. 'approval:' .. ARGV[2]
local seen = redis.call('HMGET', row, 'claimed_by', 'status', 'expires_at', 'sharing', 'hint')
if not seen[1] then return {} end
if seen[1] == '' and seen[2] ~= 'denied' and tonumber(seen[3]) > tonumber(ARGV[6]) then
  redis.call('HSET', row, 'claimed_by', ARGV[3], 'process', ARGV[4], 'entry', ARGV[5], 'claimed_at', ARGV[6])
  redis.call('SADD', ARGV[1] .. 'unsettled:' .. ARGV[4], ARGV[2])
  redis.call('EXPIRE', ARGV[1] .. 'unsettled:' .. ARGV[4], ARGV[7])
  redis.call('ZREM', ARGV[1] .. 'hints', seen[5] .. ':' .. ARGV[2])
  local open = ARGV[1] .. 'open:' .. seen[4]
  if redis.call('GET', open) == ARGV[2] then redis.call('DEL', open) end
end
return redis.call('HGETALL', row)
""",
    # Asked a second time, because the answer to the first was lost, it says the same.
    "give_back": """
local row = ARGV[1] .. 'approval:' .. ARGV[2]
local seen = redis.call('HMGET', row, 'claimed_by', 'given_back', 'given_back_by', 'sharing', 'hint', 'process',
  'expires_at')
local count = tonumber(seen[2] or '0')
if ARGV[3] == '' then return 0 end
if seen[3] == ARGV[3] then return count end
if seen[1] ~= ARGV[3] or count >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', row, 'claimed_by', '', 'process', '', 'entry', '', 'claimed_at', '0', 'outcome', '',
  'given_back', count + 1, 'given_back_by', ARGV[3])
redis.call('SREM', ARGV[1] .. 'unsettled:' .. seen[6], ARGV[2])
redis.call('ZADD', ARGV[1] .. 'hints', seen[7], seen[5] .. ':' .. ARGV[2])
redis.call('SET', ARGV[1] .. 'open:' .. seen[4], ARGV[2], 'NX', 'EX', math.max(1, redis.call('TTL', row)))
return count + 1
""",
    "settle": """
local row = ARGV[1] .. 'approval:' .. ARGV[2]
local seen = redis.call('HMGET', row, 'claimed_by', 'outcome', 'process')
if seen[1] and seen[1] ~= '' and (seen[2] == '' or seen[2] == 'unknown') then
  redis.call('HSET', row, 'outcome', ARGV[3])
  redis.call('SREM', ARGV[1] .. 'unsettled:' .. seen[3], ARGV[2])
end
return 1
""",
    # Orders come as quadruples: field, JSON, issue time, 1 for a lift. The newest holds, as in `api.orders.rank`.
    "apply": """
local function limit(order) return order and tonumber(cjson.decode(order).max_per_minute) or 0 end
if ARGV[2] ~= '' then
  redis.call('ZREMRANGEBYSCORE', ARGV[1] .. 'applied', '-inf', tonumber(ARGV[3]) - tonumber(ARGV[4]))
  if redis.call('ZADD', ARGV[1] .. 'applied', 'NX', ARGV[3], ARGV[2]) == 0 then return 0 end
end
for place = 5, #ARGV, 4 do
  local old = redis.call('HGET', ARGV[1] .. 'ranks', ARGV[place])
  local newer = true
  if old then
    local at, lifts = string.match(old, '^(%S+) (%d)$')
    local mine = tonumber(ARGV[place + 2])
    newer = mine > tonumber(at)
    if mine == tonumber(at) then
      newer = lifts > ARGV[place + 3] or (lifts == ARGV[place + 3]
        and limit(ARGV[place + 1]) < limit(redis.call('HGET', ARGV[1] .. 'orders', ARGV[place])))
    end
  end
  if newer then
    redis.call('HSET', ARGV[1] .. 'orders', ARGV[place], ARGV[place + 1])
    redis.call('HSET', ARGV[1] .. 'ranks', ARGV[place], ARGV[place + 2] .. ' ' .. ARGV[place + 3])
  end
end
return 1
""",
    # The store's own clock counts, so that the machines of a fleet agree.
    "take": """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local takes = ARGV[1] .. 'takes:' .. ARGV[2]
local limit = tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', takes, '-inf', now - 60)
local seen = redis.call('ZCARD', takes)
if seen >= limit then
  local first = redis.call('ZRANGE', takes, seen - limit, seen - limit, 'WITHSCORES')
  return tostring(math.max(0, math.min(60, tonumber(first[2]) + 60 - now)))
end
redis.call('ZADD', takes, string.format('%.6f', now), ARGV[4])
redis.call('EXPIRE', takes, 61)
return ''
""",
    "lease": """
local lease = ARGV[1] .. 'lease:' .. ARGV[2]
local owner = redis.call('GET', lease)
if owner and owner ~= ARGV[3] then return 0 end
redis.call('SET', lease, ARGV[3], 'PX', ARGV[4])
return 1
""",
}


class RedisState:
    """A store in Redis 6 or newer, under keys that begin with `ascend:{<scope>}:`.

    Connecting, and each answer, may take `timeout` seconds; a call that fails is tried once more.
    """

    blocks = True
    kind = "redis"

    def __init__(self, url: str, *, scope: str, timeout: float) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise ConfigurationError("a redis:// state needs the extra ascend-middleware[redis]") from None
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._prefix: Final = f"ascend:{{{scope}}}:"
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                # One more try covers a pooled connection that the server closed; every script may run twice.
                retry=Retry(NoBackoff(), 1),
                health_check_interval=0,
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"it is no Redis URL: {type(error).__name__}") from None
        self._scripts: Final = {name: self._redis.register_script(text) for name, text in _SCRIPTS.items()}
        try:
            with self._guarded():
                self._redis.ping()
        except (ValueError, TypeError) as error:  # the URL's query is read at the first connection
            raise ConfigurationError(f"it is no Redis URL: {type(error).__name__}") from None
        finally:
            self.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            # The message of a refused login names no password, but the URL of a failed connection might.
            raise StateError(f"Redis cannot be used: {type(error).__name__}: {shown(str(error))[:200]}") from None

    def _run(self, name: str, *arguments: Any) -> Any:
        with self._guarded():
            return self._scripts[name](args=[self._prefix, *arguments])

    # --- approvals

    def hold(self, approval: Approval, *, now: float) -> Approval:
        kept = int(approval.expires_at - now + KEPT_SECONDS) + 1
        of_hint = approval.key, approval.sharing, approval.hint, repr(approval.expires_at)
        found = _approval(self._run("hold", repr(now), *of_hint, _encode(approval), kept, approval.status))
        assert found is not None  # noqa: S101 - the script returns a row
        return found

    def find(self, handle: str) -> Approval | None:
        return self._row(key_of(handle))

    def find_open(self, sharing: str, *, now: float) -> Approval | None:
        with self._guarded():
            key = self._redis.get(f"{self._prefix}open:{sharing}")
        row = None if key is None else self._row(key)
        return row if row is not None and not row.claimed_by and row.expires_at > now else None

    def _row(self, key: str) -> Approval | None:
        with self._guarded():
            return _approval(self._redis.hgetall(f"{self._prefix}approval:{key}"))

    def note(self, handle: str, *, status: str, reason: str = "") -> None:
        self._run("note", key_of(handle), status, reason)

    def drop(self, handle: str, *, now: float) -> None:
        self._run("drop", key_of(handle), repr(now))

    def claim(self, handle: str, *, by: str, process: str, entry: str, now: float) -> Approval | None:
        return _approval(self._run("claim", key_of(handle), by, process, entry, repr(now), _APPLIED_SECONDS))

    def give_back(self, handle: str, *, by: str, most: int) -> int:
        return int(self._run("give_back", key_of(handle), by, most))

    def settle(self, handle: str, *, outcome: str) -> None:
        self._run("settle", key_of(handle), outcome)

    def unsettled(self, process: str) -> Sequence[Approval]:
        with self._guarded():
            keys = self._redis.smembers(f"{self._prefix}unsettled:{process}")
        rows = (self._row(key) for key in keys)
        return [row for row in rows if row is not None and not row.outcome]

    # --- the kill state

    def apply(self, orders: Sequence[Order], *, command_id: str, now: float) -> bool:
        given: list[Any] = []
        for order in orders:
            lifts = "1" if order.lifts else "0"
            given += [f"{order.slot} {order.target}", _encode(order), repr(order.issued_at), lifts]
        return bool(self._run("apply", command_id, repr(now), _APPLIED_SECONDS, *given))

    def confirm(self, *, now: float) -> None:
        with self._guarded():
            self._redis.set(f"{self._prefix}confirmed", repr(now))

    def snapshot(self, *, now: float) -> Snapshot:
        with self._guarded(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hvals(f"{self._prefix}orders")
            pipe.zrangebyscore(f"{self._prefix}hints", f"({now!r}", "+inf", start=0, num=MAX_HINTS + 1)
            pipe.get(f"{self._prefix}confirmed")
            texts, hints, confirmed = pipe.execute()
        try:
            orders = [_decode_order(text) for text in texts]
        except (msgspec.DecodeError, UnicodeError):
            raise StateError("the state holds a kill-switch order that cannot be read") from None
        return Snapshot(
            orders=Orders(((order.target, order.slot), order) for order in orders),
            hints=None if len(hints) > MAX_HINTS else frozenset(hint.partition(":")[0] for hint in hints),
            confirmed_at=float(confirmed or 0.0),
        )

    def take(self, name: str, *, limit: int, now: float) -> float | None:
        answer = self._run("take", name, limit, secrets.token_hex(8))
        return None if answer == "" else float(answer)

    # --- background workers

    def lease(self, name: str, *, owner: str, seconds: float, now: float) -> bool:
        return bool(self._run("lease", name, owner, int(seconds * 1000)))

    def see(self, agent_id: str, *, now: float) -> None:
        with self._guarded(), self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(f"{self._prefix}agents", {agent_id: now})
            pipe.zremrangebyscore(f"{self._prefix}agents", "-inf", now - _APPLIED_SECONDS)
            pipe.execute()

    def agents(self, *, since: float) -> Sequence[str]:
        with self._guarded():
            found: list[str] = self._redis.zrevrangebyscore(f"{self._prefix}agents", "+inf", repr(since))
            return found

    def close(self) -> None:
        with self._guarded():
            self._redis.close()


def _approval(answer: Any) -> Approval | None:
    """Make a row of a hash's fields, which scripts return as a flat list."""
    fields: dict[str, str] = dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else answer
    if not fields:
        return None
    try:
        changed: dict[str, Any] = {name: fields[name] for name in _MUTABLE}
        for name in ("expires_at", "claimed_at"):
            changed[name] = float(changed[name])
        changed[_GIVEN_BACK] = int(fields.get(_GIVEN_BACK, 0))
        return replace(_decode_approval(fields["json"]), **changed)
    except (KeyError, ValueError, msgspec.DecodeError):
        raise StateError("the state holds an approval that cannot be read") from None
