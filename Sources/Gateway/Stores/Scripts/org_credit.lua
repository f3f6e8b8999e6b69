#!lua
-- Prepaid money for an org, once for each reference; creates the org first where asked to.
--
-- KEYS[1]  tg:{org}:a
-- ARGV     now (tests only; empty means this server's clock), amount or empty, reference, create ('1' or empty), and
--          to create: name, rpm, tpm, concurrency (empty: unlimited), keys cap
-- Reply    {'ok', entry id, at, '1' if it was there before}, {'exists'}, {'unknown'}, {'reused'}, {'bounds'}

local call, floor, format = redis.call, math.floor, string.format
local account = KEYS[1]
local prefix = string.sub(account, 1, -2)
local MAX = 9007199254740991

local now
if ARGV[1] == '' then
    local t = call('TIME')
    now = t[1] * 1000 + floor(t[2] / 1000)
else
    now = tonumber(ARGV[1])
end
local amount, reference, create = tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'

local a = call('HMGET', account, 'bal', 'credit', 'now')
if create and a[1] then return { 'exists' } end
if not create and not a[1] then return { 'unknown' } end
local bal, credit = tonumber(a[1] or 0), tonumber(a[2] or 0)
local before = tonumber(a[3] or 0)
if before > now then now = before end

local known = call('HGET', prefix .. 'ref', reference)
if known and amount then
    local was, id, at = string.match(known, '^credit (%d+) (%S+) (%d+)$')
    if tonumber(was) ~= amount then return { 'reused' } end
    return { 'ok', id, at, '1' }
end
if amount and (amount <= 0 or amount > MAX or bal + amount > MAX or amount > MAX - credit - bal) then
    return { 'bounds' }
end
local entriesKey
if amount then
    local z = floor(now / 86400000) + 719468
    local era = floor(z / 146097)
    local doe = z - era * 146097
    local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
    local mp = floor((5 * (doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))) + 2) / 153)
    local month = mp < 10 and mp + 3 or mp - 9
    entriesKey = format('%se:%04d-%02d', prefix, yoe + era * 400 + (month <= 2 and 1 or 0), month)
    call('XLEN', entriesKey)
end
call('HLEN', prefix .. 'limits')

-- Everything was read and so every type checked: from here on nothing fails.
local id, at = '', format('%.0f', now)
if amount then
    local entry = format('%.0f %s %s', amount, at, reference)
    id = redis.pcall('XADD', entriesKey, at .. '-*', 'credit', entry)
    if type(id) == 'table' then id = call('XADD', entriesKey, '*', 'credit', entry) end
    call('HSET', prefix .. 'ref', reference, format('credit %.0f %s %s', amount, id, at))
    bal = bal + amount
end
if create then
    for n, field in ipairs({ 'rpm', 'tpm', 'conc' }) do
        if ARGV[5 + n] ~= '' then call('HSET', prefix .. 'limits', field, ARGV[5 + n]) end
    end
    call('HSET', account, 'bal', format('%.0f', bal), 'now', at, 'credit', '0', 'lent', '0', 'status', 'active',
        'name', ARGV[5], 'created', at, 'keysmax', ARGV[9], 'keys', '0')
else
    call('HSET', account, 'bal', format('%.0f', bal), 'now', at)
end
return { 'ok', id, at, '' }
