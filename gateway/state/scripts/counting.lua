-- What all scripts share. The twin of local_counters.py: whoever changes one changes the other, and the contract
-- tests say whether they still agree. All numbers are whole and below 2^53, save what is missing from a meter.
--
--   sums     hash   account → its text; 'now' → the last time that was seen; without it the tenant is cold;
--                   'epoch' → the revision before which nothing may have been read, also of a cold one
--     rate:…                   "missing at per_minute"
--     bucket:…                 "missing at per_minute since low since low …", see local_meters.py
--     slots:…                  "leases"
--     day:…, month:…, total:…  "period ends spent reserved", ends 0 for never
--   open     hash   reservation → {at, tokens, puts} as JSON; those of ended leases are kept to be corrected
--   leases   zset   reservation → when its lease ends
--   charged  zset   reservation whose lease ended → when it is forgotten
--   told     set    reservations whose lease ended and that nobody has written down or settled yet
local SUMS, OPEN, LEASES, CHARGED, TOLD = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local MINUTE_US = 60000000
local DAY_US = 86400000000
local CORRECTABLE_US = 2 * DAY_US
local MAX_CORRECTION_US = 60000000
local MAX_EXPIRED = 20
local MAX_LOWS = 32
-- What doubles lose in a meter must not cost a request.
local SLACK = 1e-6

local function whole(number)
  return string.format('%.0f', number)
end

-- Now; never goes back, unless the clock had run ahead by more than a minute. Nil when the tenant is cold.
local function tick()
  local last = tonumber(redis.call('HGET', SUMS, 'now') or '')
  if not last then
    return nil
  end
  local time = server_time_us()
  local now = math.max(time, math.min(last, time + MAX_CORRECTION_US))
  redis.call('HSET', SUMS, 'now', whole(now))
  return now
end

local function current_epoch()
  return tonumber(redis.call('HGET', SUMS, 'epoch') or 0)
end

local function raise_epoch(epoch)
  if epoch > current_epoch() then
    redis.call('HSET', SUMS, 'epoch', whole(epoch))
  end
end

-- ── accounts ──────────────────────────────────────────────────────────────────────────

local function meter_of(text)
  local missing, at, per_minute, lows = string.match(text or '0 0 0', '^(%S+) (%S+) (%S+)(.*)$')
  return tonumber(missing), tonumber(at), tonumber(per_minute), lows
end

local function meter_text(missing, at, per_minute)
  return string.format('%.17g %.0f %.0f', missing, at, per_minute)
end

local function missing_at(text, per_minute, now)
  local missing, at, _, lows = meter_of(text)
  return math.max(0, missing - per_minute * math.max(0, now - at) / MINUTE_US), lows
end

-- A bucket's lows are {since, low} pairs: since then it never lacked less. One that says no more than the one
-- before is left out.
local function add_low(lows, since, low)
  if low > (lows[#lows] and lows[#lows][2] or 0) then
    lows[#lows + 1] = {since, low}
  end
end

local function bucket_at(text, per_minute, now)
  local missing, told = missing_at(text, per_minute, now)
  local lows = {}
  for since, low in string.gmatch(told, '(%S+) (%S+)') do
    add_low(lows, tonumber(since), math.min(tonumber(low), missing))
  end
  return missing, lows
end

local function bucket_text(missing, at, per_minute, lows)
  local parts = {meter_text(missing, at, per_minute)}
  for _, low in ipairs(lows) do
    parts[#parts + 1] = string.format('%.0f %.17g', low[1], low[2])
  end
  return table.concat(parts, ' ')
end

-- Without the one that says the least more, when there are too many: refunds are then a bit too small.
local function shorten(lows)
  if #lows <= MAX_LOWS then
    return
  end
  local least, at, before = math.huge, nil, 0
  for i, low in ipairs(lows) do
    if low[2] - before < least then
      least, at = low[2] - before, i
    end
    before = low[2]
  end
  table.remove(lows, at)
end

-- Take tokens; `lows` become those that hold then.
local function bucket_plus(missing, lows, tokens, now)
  missing = missing + tokens
  -- Where the last is from the future, the clock was set back since: those before it hold as well.
  if #lows == 0 or lows[#lows][1] <= now then
    add_low(lows, now, missing)
    shorten(lows)
  end
  return missing
end

local function window_of(text)
  local period, ends, spent, reserved = string.match(text or ' 0 0 0', '^(%S*) (%S+) (%S+) (%S+)$')
  return {period = period, ends = tonumber(ends), spent = tonumber(spent), reserved = tonumber(reserved)}
end

local function window_text(window)
  return string.format('%s %.0f %.0f %.0f', window.period, window.ends, window.spent, window.reserved)
end

local function save_window(account, window)
  window.spent, window.reserved = math.max(0, window.spent), math.max(0, window.reserved)
  redis.call('HSET', SUMS, account, window_text(window))
end

-- ── ended leases ──────────────────────────────────────────────────────────────────────

local function give_slot_back(account)
  if redis.call('HINCRBY', SUMS, account, -1) <= 0 then
    redis.call('HDEL', SUMS, account)
  end
end

-- Move what a reservation holds in its period from reserved to spent.
local function charge(account, period, reserved, spent)
  local text = redis.call('HGET', SUMS, account)
  local window = window_of(text)
  if text and window.period == period then
    window.reserved = window.reserved - reserved
    window.spent = window.spent + spent
    save_window(account, window)
  end
end

local function end_lease(reservation, now)
  local record = cjson.decode(redis.call('HGET', OPEN, reservation))
  local tokens = tonumber(record.tokens)
  for _, put in ipairs(record.puts) do
    if put[1] == 'slots' then
      give_slot_back(put[2])
    elseif put[1] == 'budget' then
      charge(put[2], put[3], tokens, tokens)
    end
  end
  redis.call('ZREM', LEASES, reservation)
  redis.call('ZADD', CHARGED, whole(now + CORRECTABLE_US), reservation)
  redis.call('SADD', TOLD, reservation)
end

-- Charge what ran out, and forget what can no longer be corrected; a bounded number of each.
local function expire(now, at_most)
  for _, due in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', whole(now), 'LIMIT', 0, at_most)) do
    end_lease(due, now)
  end
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', CHARGED, '-inf', whole(now), 'LIMIT', 0, at_most)) do
    redis.call('ZREM', CHARGED, old)
    redis.call('SREM', TOLD, old)
    redis.call('HDEL', OPEN, old)
  end
end
