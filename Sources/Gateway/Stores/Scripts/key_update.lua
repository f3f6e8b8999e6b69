#!lua
-- Changes what a key is called and may do, or revokes it for good.
--
-- KEYS[1]  tg:{org}:a
-- ARGV     id, name, status, rpm, tpm, concurrency, models (ids with a space between); empty keeps, '-' takes a limit
--          away
-- Reply    'ok' or 'unknown'

local call = redis.call
local account = KEYS[1]
local prefix = string.sub(account, 1, -2)
local record = prefix .. 'k:' .. ARGV[1]

local status = call('HGET', record, 'status')
if not status then return 'unknown' end
local keys = tonumber(call('HGET', account, 'keys'))

for n, field in ipairs({ 'rpm', 'tpm', 'conc', 'models' }) do
    local value = ARGV[3 + n]
    if value == '-' then
        call('HDEL', record, field)
    elseif value ~= '' then
        call('HSET', record, field, value)
    end
end
if ARGV[2] ~= '' then call('HSET', record, 'name', ARGV[2]) end
if ARGV[3] ~= '' and ARGV[3] ~= status then
    call('HSET', record, 'status', ARGV[3])
    if status == 'active' then call('HSET', account, 'keys', string.format('%.0f', keys - 1)) end
end
return 'ok'
