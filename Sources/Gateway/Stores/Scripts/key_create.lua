#!lua
-- Writes what a new key may do into its org's slot. The directory entry, which lets it authenticate, comes after.
--
-- KEYS[1]  tg:{org}:a
-- ARGV     now (tests only; empty means this server's clock), id, name, last four, rpm, tpm, concurrency (empty:
--          unlimited), models (ids with a space between; empty: every model)
-- Reply    {'ok', created}, {'unknown'}, {'exists'}, or {'cap', cap} where the org has as many active keys as it may

local call = redis.call
local account = KEYS[1]
local prefix = string.sub(account, 1, -2)
local record = prefix .. 'k:' .. ARGV[2]

local now = ARGV[1]
if now == '' then
    local t = call('TIME')
    now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
end
local a = call('HMGET', account, 'bal', 'keys', 'keysmax')
if not a[1] then return { 'unknown' } end
local keys, cap = tonumber(a[2]), tonumber(a[3])
if call('HLEN', record) > 0 then return { 'exists' } end
if keys >= cap then return { 'cap', a[3] } end
call('SCARD', prefix .. 'keys')

call('HSET', record, 'status', 'active', 'name', ARGV[3], 'last4', ARGV[4], 'created', now)
for n, field in ipairs({ 'rpm', 'tpm', 'conc' }) do
    if ARGV[4 + n] ~= '' then call('HSET', record, field, ARGV[4 + n]) end
end
if ARGV[8] ~= '' then call('HSET', record, 'models', ARGV[8]) end
call('SADD', prefix .. 'keys', ARGV[2])
call('HSET', account, 'keys', string.format('%.0f', keys + 1))
return { 'ok', now }
