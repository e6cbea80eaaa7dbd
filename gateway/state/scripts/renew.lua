-- Keep leases from now on. ARGV: µs, reservations …
local now = tick()
if now then
  for i = 2, #ARGV do
    redis.call('ZADD', LEASES, 'XX', whole(now + ARGV[1]), ARGV[i])
  end
end
return 1
