#!lua
-- Changes what an org is called, may owe and may do.
--
-- KEYS[1]  tg:{org}:a
-- ARGV     name, credit limit, status, rpm, tpm, concurrency; empty keeps, '-' takes a limit away
-- Reply    'ok', 'unknown', 'bounds', or 'lent' where money lent to gateways would lose its cover

local call = redis.call
local account = KEYS[1]
local limits = string.sub(account, 1, -2) .. 'limits'
local MAX = 9007199254740991

local a = call('HMGET', account, 'bal', 'credit', 'lent')
if not a[1] then return 'unknown' end
local bal, credit, lent = tonumber(a[1]), tonumber(a[2]), tonumber(a[3])
if ARGV[2] ~= '' then
    local wanted = tonumber(ARGV[2])
    if wanted < 0 or wanted > MAX or wanted > MAX - bal then return 'bounds' end
    if wanted < credit and lent > bal + wanted then return 'lent' end
end
call('HLEN', limits)

for n, field in ipairs({ 'rpm', 'tpm', 'conc' }) do
    local value = ARGV[3 + n]
    if value == '-' then
        call('HDEL', limits, field)
    elseif value ~= '' then
        call('HSET', limits, field, value)
    end
end
for n, field in ipairs({ 'name', 'credit', 'status' }) do
    if ARGV[n] ~= '' then call('HSET', account, field, ARGV[n]) end
end
return 'ok'
