#!lua flags=no-writes
-- One consistent look at an org.
--
-- KEYS[1]  tg:{org}:a
-- ARGV     'keys' to list the keys too, or empty; a month (YYYY-MM) whose newest entry is wanted, or empty
-- Reply    {account as field, value ...; {rpm, tpm, concurrency}; for each key {id, {field, value ...}}; the newest
--          entry's id or nothing}, or nil

local account = redis.call('HGETALL', KEYS[1])
if #account == 0 then return nil end
local prefix = string.sub(KEYS[1], 1, -2)
local keys = {}
if ARGV[1] == 'keys' then
    for n, id in ipairs(redis.call('SMEMBERS', prefix .. 'keys')) do
        keys[n] = { id, redis.call('HGETALL', prefix .. 'k:' .. id) }
    end
end
local newest = ''
if ARGV[2] ~= '' then
    local last = redis.call('XREVRANGE', prefix .. 'e:' .. ARGV[2], '+', '-', 'COUNT', 1)
    if last[1] then newest = last[1][1] end
end
return { account, redis.call('HMGET', prefix .. 'limits', 'rpm', 'tpm', 'conc'), keys, newest }
