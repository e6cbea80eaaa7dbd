-- Tell what the ledger knows; nothing that was counted here gets lower.
--
-- ARGV[1]: {lease, epoch, sums: [[account, period, spent, longest], …],
--           intents: [{id, at, tokens, budgets: [[account, period, longest], …], slots: [account, …]}, …]}
-- Times in µs; longest is in how long a period is over for sure, 0 for never.
local function window_in(account, period, longest, now)
  local window = window_of(redis.call('HGET', SUMS, account))
  if window.period < period then
    return {period = period, ends = longest > 0 and now + longest or 0, spent = 0, reserved = 0}
  end
  return window.period == period and window or nil
end

local function hold(intent, lease, now)
  local puts = {}
  for _, budget in ipairs(intent.budgets) do
    local window = window_in(budget[1], budget[2], budget[3], now)
    if window then
      window.reserved = window.reserved + intent.tokens
      save_window(budget[1], window)
    end
    puts[#puts + 1] = {'budget', budget[1], budget[2]}
  end
  for _, account in ipairs(intent.slots) do
    redis.call('HINCRBY', SUMS, account, 1)
    puts[#puts + 1] = {'slots', account}
  end
  redis.call('HSET', OPEN, intent.id, cjson.encode({at = whole(intent.at), tokens = whole(intent.tokens), puts = puts}))
  redis.call('ZADD', LEASES, whole(now + lease), intent.id)
end

local function run(told)
  local now = tick()
  local is_cold = not now
  local epoch = math.max(told.epoch, current_epoch())
  if is_cold then
    redis.call('DEL', SUMS, OPEN, LEASES, CHARGED, TOLD)
    now = server_time_us()
    redis.call('HSET', SUMS, 'now', whole(now))
  end
  raise_epoch(epoch)
  for _, sum in ipairs(told.sums) do
    local window = window_in(sum[1], sum[2], sum[4], now)
    if window then
      window.spent = math.max(window.spent, sum[3])
      save_window(sum[1], window)
    end
  end
  if is_cold then
    for _, intent in ipairs(told.intents) do
      hold(intent, told.lease, now)
    end
  end
  return 1
end

return run(cjson.decode(ARGV[1]))
