-- End what ran out, and tell what was not told yet. ARGV: how many at most. Returns "reservation tokens" of each.
local now = tick()
if now then
  expire(now, tonumber(ARGV[1]))
end
return redis.call('LPOP', TOLD, ARGV[1]) or {}
