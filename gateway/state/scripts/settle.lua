-- Replace what a reservation holds by what was used. ARGV: reservation, tokens. Returns whether it was known.
--
-- A bucket is given back what it has lacked ever since: for the rest it has filled up by itself (local_meters.py).
local function without(lows, tokens, taken)
  local least = 0
  for _, low in ipairs(lows) do
    least = low[1] <= taken and low[2] or least
  end
  local back = math.min(tokens, least)
  local left = {}
  for _, low in ipairs(lows) do
    add_low(left, low[1], low[1] >= taken and low[2] - back or math.min(low[2], least - back))
  end
  return back, left
end

local function give_back(account, limit, unused, taken, now)
  -- Without a text it was full again and dropped: what was used beyond what was taken is owed all the same.
  local text = redis.call('HGET', SUMS, account) or '0 0 ' .. whole(limit)
  local _, _, per_minute = meter_of(text)
  local missing, lows = bucket_at(text, per_minute, now)
  if unused > 0 then
    local back
    back, lows = without(lows, unused, taken)
    missing = missing - back
  else
    missing = bucket_plus(missing, lows, -unused, now)
  end
  redis.call('HSET', SUMS, account, bucket_text(missing, now, per_minute, lows))
end

local function settle(put, record, used, is_charged, now)
  local reserved = tonumber(record.tokens)
  if put[1] == 'budget' then
    if is_charged then
      charge(put[2], put[3], 0, used - reserved)
    else
      charge(put[2], put[3], reserved, used)
    end
  elseif is_charged then
    return -- its slot is free, and the bucket has filled up since
  elseif put[1] == 'slots' then
    give_slot_back(put[2])
  elseif put[1] == 'bucket' then
    give_back(put[2], put[4], put[3] - used, tonumber(record.at), now)
  end
end

local function run(reservation, used)
  local now = tick()
  local text = now and redis.call('HGET', OPEN, reservation)
  if not text then
    return 0
  end
  local record = cjson.decode(text)
  local is_charged = redis.call('ZREM', CHARGED, reservation) == 1
  for _, put in ipairs(record.puts) do
    settle(put, record, used, is_charged, now)
  end
  redis.call('ZREM', LEASES, reservation)
  redis.call('SREM', TOLD, reservation)
  redis.call('HDEL', OPEN, reservation)
  return 1
end

return run(ARGV[1], tonumber(ARGV[2]))
