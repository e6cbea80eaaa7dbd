-- End what ran out, and tell what nobody has heard of yet. ARGV: how many at most. Returns [reservation, record, …].
local now = tick()
if not now then
  return {}
end
expire(now, tonumber(ARGV[1]))
local told = redis.call('SRANDMEMBER', TOLD, ARGV[1])
if #told == 0 then
  return {}
end
return {told, redis.call('HMGET', OPEN, unpack(told))}
