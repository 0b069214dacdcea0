"""The one script that changes a shared circuit; it runs inside Redis, so that every change is atomic.

A circuit is a hash; the votes of workers whose own circuit opened are a sorted set with the instants at which they
expire. Time is the server's. The version is the server's microseconds, and always more than the version before: it
grows even over a server that lost its data. Every change is published with the whole record, and counted in one key
for all circuits, so that a poll is one ``GET``.
"""

__all__ = ["SCRIPT"]

SCRIPT = """
local key, votes, counter = KEYS[1], KEYS[2], KEYS[3]
local op, name, me = ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = 0

local function load()
  local flat, record = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  record.mode = record.mode or 'auto'
  record.state = record.state or 'closed'
  return record
end

local function isolations(record)
  local found, number = {}, 0
  for field, value in pairs(record) do
    if string.sub(field, 1, 2) == 'i:' then
      local bar = string.find(value, '|', 1, true)
      local ends = tonumber(string.sub(value, 1, bar - 1))
      if ends >= 0 and ends <= now then
        redis.call('HDEL', key, field)
      else
        local left = -1
        if ends >= 0 then left = ends - now end
        found[string.sub(field, 3)] = {left, string.sub(value, bar + 1)}
        number = number + 1
      end
    end
  end
  return found, number
end

local function view()
  local record = load()
  return cjson.encode({
    name = name, version = record.v or '0', mode = record.mode, state = record.state, why = record.why or '',
    by = record.by or '', left = (tonumber(record.ends) or now) - now, round = tonumber(record.round) or 0,
    error = record.error or '', held = isolations(record), wait = wait,
  })
end

local function change(record, why)
  local version = math.max((tonumber(record.v) or 0) + 1, time[1] * 1000000 + time[2])
  redis.call('HSET', key, 'v', string.format('%.0f', version), 'why', why, 'by', me)
  redis.call('INCR', counter)
  redis.call('PUBLISH', counter, view())
end

local function clear(mode)
  redis.call('HSET', key, 'mode', mode, 'state', 'closed', 'round', 0)
  redis.call('HDEL', key, 'ends', 'error', 'lease', 'lease_ends', 'loser', 'loser_ends')
  redis.call('DEL', votes)
end

local function close(record, why)
  clear('auto')
  change(record, why)
end

local record = load()
local held, number = isolations(record)
if record.mode == 'isolated' and number == 0 and op ~= 'drop' then
  record.mode, record.state = 'auto', 'closed'
  redis.call('HSET', key, 'mode', 'auto', 'state', 'closed')
end
local auto, open = record.mode == 'auto', record.state == 'open'
local leased = record.lease and tonumber(record.lease_ends) > now

if op == 'open' and auto then
  local length, quorum, vote = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
  local mine = open and leased and record.lease == me
  redis.call('ZADD', votes, now + vote, me)
  redis.call('ZREMRANGEBYSCORE', votes, '-inf', now)
  redis.call('PEXPIRE', votes, vote + 60000)
  if mine or (not open and redis.call('ZCARD', votes) >= quorum) then
    redis.call('HSET', key, 'mode', 'auto', 'state', 'open', 'ends', now + length, 'error', ARGV[7], 'round', ARGV[8])
    redis.call('HDEL', key, 'lease', 'lease_ends')
    if mine then redis.call('HSET', key, 'loser', me, 'loser_ends', now + 2 * length) end
    change(record, 'opened')
  end
elseif op == 'close' then
  redis.call('ZREM', votes, me)
  if auto and open and (record.lease == me or record.v == ARGV[4]) then close(record, ARGV[5]) end
elseif op == 'lease' and auto and open then
  local ends = tonumber(record.ends) or now
  if ends > now then
    wait = ends - now
  elseif leased and record.lease ~= me then
    wait = tonumber(record.lease_ends) - now
  elseif tonumber(ARGV[5]) > 1 and record.loser == me and tonumber(record.loser_ends) > now then
    wait = tonumber(record.loser_ends) - now
  else
    redis.call('HSET', key, 'lease', me, 'lease_ends', now + ARGV[4])
  end
elseif op == 'give' and record.lease == me then
  redis.call('HDEL', key, 'lease', 'lease_ends')
  if open then change(record, 'returned') end
elseif op == 'hold' then
  local ends = tonumber(ARGV[4])
  if ends >= 0 then ends = now + ends end
  clear('isolated')
  redis.call('HSET', key, 'i:' .. me, string.format('%.0f', ends) .. '|' .. ARGV[5])
  change(record, 'isolated')
elseif op == 'drop' then
  if redis.call('HDEL', key, 'i:' .. me) == 1 or (record.mode == 'isolated' and number == 0) then
    local rest, left = isolations(load())
    if record.mode == 'isolated' and left == 0 then close(record, 'released') else change(record, 'isolated') end
  end
elseif op == 'set' or op == 'reset' then
  for field in pairs(record) do
    if string.sub(field, 1, 2) == 'i:' then redis.call('HDEL', key, field) end
  end
  if op == 'reset' then
    close(record, 'reset')
  else
    clear(ARGV[4])
    change(record, ARGV[4])
  end
end
if redis.call('HGET', key, 'mode') == 'auto' then redis.call('PEXPIRE', key, 604800000)
else redis.call('PERSIST', key) end
return view()
"""
"""``KEYS``: record, votes, counter and channel. ``ARGV``: operation, circuit, worker, and what the operation needs:

- ``open``: milliseconds of the break, quorum, life of the vote, error, round.
- ``close``: the version known, ``closed`` or ``ramp``.
- ``lease``: milliseconds of the lease, quorum. ``give``: nothing.
- ``hold``: milliseconds (-1: for ever), reasons. ``drop``: nothing.
- ``set``: ``disabled`` or ``metrics_only``. ``reset`` and ``read``: nothing.
"""
