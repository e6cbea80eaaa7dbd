-- The one clock that counts, in µs since the epoch.
local function server_time_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
