-- Take everything that a plan wants, or nothing; with `look`, only tell where it stands and what would be taken.
--
-- ARGV[1]: {id, needed, wanted, spared, lease, epoch, look, seen, takes: [[kind, account, limit, periods?], …]}, times
-- in µs; a limit of -1 is none; periods are a budget's: [id, ends], ends 0 for never.
local SOON_US = 1000000
local MAX_TOKENS = 9007199254740991

-- A period never comes back, whatever a caller's clock says.
local function current_window(text, periods, now)
  local current = periods[#periods]
  for _, period in ipairs(periods) do
    if period[2] == 0 or now < period[2] then
      current = period
      break
    end
  end
  local window = window_of(text)
  if window.period < current[1] then
    return {period = current[1], ends = current[2], spent = 0, reserved = 0}
  end
  if window.period == current[1] then
    window.ends = current[2]
  end
  return window
end

local function meter_used(missing)
  return math.max(0, math.ceil(missing - SLACK))
end

-- In how many µs so much comes back.
local function refilled(missing, per_minute)
  return math.ceil(missing * MINUTE_US / per_minute)
end

local MEASURE = {}

local function measured_meter(missing, limit, now, lows)
  return {
    missing = missing,
    lows = lows,
    free = math.floor(limit - missing + SLACK),
    used = meter_used(missing),
    reserved = 0,
    resets = limit > 0 and now + refilled(missing, limit) or -1,
  }
end

function MEASURE.rate(take, text, now)
  return measured_meter(missing_at(text, take[3], now), take[3], now, {})
end

function MEASURE.bucket(take, text, now)
  local missing, lows = bucket_at(text, take[3], now)
  return measured_meter(missing, take[3], now, lows)
end

function MEASURE.slots(take, text)
  local leases = tonumber(text or 0)
  return {free = take[3] - leases, used = leases, reserved = 0, resets = -1}
end

function MEASURE.budget(take, text, now)
  local window = current_window(text, take[4], now)
  local limit = take[3] < 0 and MAX_TOKENS or take[3]
  return {
    window = window,
    free = limit - window.spent - window.reserved,
    used = window.spent,
    reserved = window.reserved,
    resets = window.ends > 0 and window.ends or -1,
  }
end

-- When so much may fit; -1 when it never will.
local function retry_at(take, measured, amount, now)
  local kind, limit = take[1], take[3]
  if limit == 0 or amount > limit then
    return -1
  elseif kind == 'slots' then
    return now + SOON_US
  elseif kind == 'budget' then
    if measured.used + amount > limit then
      return measured.resets
    end
    return measured.resets > 0 and math.min(measured.resets, now + SOON_US) or now + SOON_US
  end
  return now + refilled(measured.missing + amount - limit, limit) + 1
end

-- What a take is of, in its own unit, where the plan is of so many tokens.
local function amount_of(take, tokens, spared)
  if take[1] == 'bucket' then
    return math.max(0, tokens - spared)
  end
  return take[1] == 'budget' and tokens or 1
end

local function standing(measured)
  return {measured.used, measured.reserved, measured.resets}
end

local function load(takes, now)
  local accounts = {}
  for i, take in ipairs(takes) do
    accounts[i] = take[2]
  end
  local texts = #accounts > 0 and redis.call('HMGET', SUMS, unpack(accounts)) or {}
  local measured = {}
  for i, take in ipairs(takes) do
    measured[i] = MEASURE[take[1]](take, texts[i], now)
  end
  return measured, texts
end

-- A meter that was written before the clock was set back would not refill until it gets there again.
local function mend(takes, measured, texts, now)
  for i, take in ipairs(takes) do
    if measured[i].missing then
      local _, at = meter_of(texts[i])
      if at > now then
        redis.call('HSET', SUMS, take[2], bucket_text(measured[i].missing, now, take[3], measured[i].lows))
      end
    end
  end
end

-- Of those that lack something, the one that lasts longest; of equals the first.
local function refusal(plan, measured, now)
  local longest, index, retry = -1, nil, nil
  for i, take in ipairs(plan.takes) do
    local amount = amount_of(take, plan.needed, plan.spared)
    if take[3] == 0 or math.max(0, measured[i].free) < amount then
      local at = retry_at(take, measured[i], amount, now)
      local lasts = at < 0 and math.huge or at
      if lasts > longest then
        longest, index, retry = lasts, i, at
      end
    end
  end
  return index and {now, index - 1, standing(measured[index]), retry}
end

local function granted(plan, measured)
  local tokens = plan.wanted
  for i, take in ipairs(plan.takes) do
    if take[1] == 'bucket' then
      tokens = math.min(tokens, measured[i].free + plan.spared)
    elseif take[1] == 'budget' then
      tokens = math.min(tokens, measured[i].free)
    end
  end
  return math.max(0, tokens)
end

-- The account's new text, and how a settlement finds what was put there; nil when it need not.
local PUT = {}

local function tell_meter(measured, missing, limit, now)
  measured.used, measured.resets = meter_used(missing), now + refilled(missing, limit)
end

function PUT.rate(take, measured, tokens, now)
  local missing = measured.missing + tokens
  tell_meter(measured, missing, take[3], now)
  return meter_text(missing, now, take[3])
end

function PUT.bucket(take, measured, tokens, now)
  local missing = bucket_plus(measured.missing, measured.lows, tokens, now)
  tell_meter(measured, missing, take[3], now)
  return bucket_text(missing, now, take[3], measured.lows), {'bucket', take[2], tokens, take[3]}
end

function PUT.slots(take, measured)
  measured.used = measured.used + 1
  return whole(measured.used), {'slots', take[2]}
end

function PUT.budget(take, measured, tokens)
  local window = measured.window
  window.reserved = window.reserved + tokens
  measured.reserved = window.reserved
  return window_text(window), {'budget', take[2], window.period}
end

local function consume(plan, measured, tokens, now)
  local puts, changes = {}, {}
  for i, take in ipairs(plan.takes) do
    local text, put = PUT[take[1]](take, measured[i], amount_of(take, tokens, plan.spared), now)
    changes[#changes + 1] = take[2]
    changes[#changes + 1] = text
    puts[#puts + 1] = put
  end
  if #changes > 0 then
    redis.call('HSET', SUMS, unpack(changes))
  end
  local record = {at = whole(now), tokens = whole(tokens), puts = puts}
  redis.call('HSET', OPEN, plan.id, cjson.encode(record))
  redis.call('ZADD', LEASES, whole(now + plan.lease), plan.id)
  redis.call('ZREM', CHARGED, plan.id)
  redis.call('SREM', TOLD, plan.id)
  return record
end

local function standings(accounts)
  local all = {}
  for i, measured in ipairs(accounts) do
    all[i] = standing(measured)
  end
  return all
end

local function taken(record, measured, now)
  local periods = {}
  for _, put in ipairs(record.puts) do
    if put[1] == 'budget' then
      periods[#periods + 1] = put[3]
    end
  end
  return {'taken', now, tonumber(record.tokens), standings(measured), periods}
end

local function is_idle(account, text, now)
  local kind = string.match(account, '^%a+')
  if kind == 'rate' or kind == 'bucket' then
    local _, _, per_minute = meter_of(text)
    return missing_at(text, per_minute, now) == 0
  elseif kind == 'day' or kind == 'month' then
    return now >= window_of(text).ends + DAY_US
  end
  return false
end

-- Accounts that are as if they had never been are dropped, two looked at for each take: the tenant's hash stays
-- as small as what its callers use.
local function tidy(now)
  local sample = redis.call('HRANDFIELD', SUMS, 2, 'WITHVALUES')
  for i = 1, #sample, 2 do
    if is_idle(sample[i], sample[i + 1], now) then
      redis.call('HDEL', SUMS, sample[i])
    end
  end
end

local function run(plan)
  -- A server that was brought back to an earlier state: what it told since is lost.
  if tonumber(redis.call('HGET', SUMS, 'now') or plan.seen) < plan.seen then
    return {'behind'}
  end
  local now = tick()
  if not now then
    return {'cold'}
  end
  expire(now, MAX_EXPIRED)
  local measured, texts = load(plan.takes, now)
  local known = not plan.look and redis.call('HGET', OPEN, plan.id)
  if known and not redis.call('ZSCORE', CHARGED, plan.id) then
    return taken(cjson.decode(known), measured, now)
  end
  local epoch = current_epoch()
  if plan.epoch < epoch then
    return {'stale', epoch}
  end
  if plan.look then
    return {'looked', now, standings(measured), refusal(plan, measured, now) or granted(plan, measured)}
  end
  local refused = refusal(plan, measured, now)
  if refused then
    mend(plan.takes, measured, texts, now)
    return {'refused', unpack(refused)}
  end
  local record = consume(plan, measured, granted(plan, measured), now)
  tidy(now)
  return taken(record, measured, now)
end

return run(cjson.decode(ARGV[1]))
