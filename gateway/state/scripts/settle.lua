-- Replace what a reservation holds by what was used. ARGV: reservation, tokens. Returns whether it was known.
local function give_back(account, per_minute, tokens, now)
  local text = redis.call('HGET', SUMS, account)
  if text then
    local _, _, current = meter_of(text)
    per_minute = current
  end
  -- Without a text it was full again and dropped: what was used beyond what was taken is owed all the same.
  local missing = math.max(0, (text and missing_at(text, per_minute, now) or 0) - tokens)
  redis.call('HSET', SUMS, account, meter_text(missing, now, per_minute))
end

local function settle(put, reserved, used, is_charged, now)
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
    give_back(put[2], put[4], put[3] - used, now)
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
    settle(put, tonumber(record.tokens), used, is_charged, now)
  end
  redis.call('ZREM', LEASES, reservation)
  redis.call('SREM', TOLD, reservation)
  redis.call('HDEL', OPEN, reservation)
  return 1
end

return run(ARGV[1], tonumber(ARGV[2]))
