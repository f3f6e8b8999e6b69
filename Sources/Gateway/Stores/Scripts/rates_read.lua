#!lua flags=no-writes
-- What a key's rate windows hold at this moment, for answers that never asked to spend. LedgerModel.rates is its
-- specification; the windows are those of sync.lua.
--
-- KEYS[1]  tg:{org}:a
-- ARGV     now (tests only; empty means this server's clock), key
-- Reply    integers: limit, remaining and reset in milliseconds of requests, the same of tokens (limit -1: unlimited)

local call, floor, unpackstruct = redis.call, math.floor, struct.unpack
local prefix = string.sub(KEYS[1], 1, -2)

local now
if ARGV[1] == '' then
    local t = call('TIME')
    now = t[1] * 1000 + floor(t[2] / 1000)
else
    now = tonumber(ARGV[1])
end
local before = tonumber(call('HGET', KEYS[1], 'now') or 0)
if before > now then now = before end
local second = floor(now / 1000)

local reply = { -1, 0, 0, -1, 0, 0 }
local key = call('HMGET', prefix .. 'k:' .. ARGV[2], 'status', 'rpm', 'tpm')
if key[1] ~= 'active' then return reply end
local org = call('HMGET', prefix .. 'limits', 'rpm', 'tpm')
local rings = call('MGET', prefix .. 'w:o', prefix .. 'w:k:' .. ARGV[2])

-- Requests and tokens of the last 60 s, and until when the newest of them counts.
local function sums(ring)
    if not ring or #ring ~= 884 then return 0, 0, 0 end
    local at, newest, requests, tokens = unpackstruct('<dddd', ring)
    if second - at >= 71 then return 0, 0, 0 end
    for leaving = at - 60, second - 61 do
        local r, t = unpackstruct('<I4d', ring, 33 + leaving % 71 * 12)
        requests, tokens = requests - r, tokens - t
    end
    return requests, tokens, requests > 0 and (newest + 61) * 1000 - now or 0
end

-- The scope with the least remaining; the org's where two are alike.
local function tell(at, limit, used, reset)
    limit = tonumber(limit or nil)
    if not limit then return end
    local left = used < limit and limit - used or 0
    if reply[at] < 0 or left < reply[at + 1] then
        reply[at], reply[at + 1], reply[at + 2] = limit, left, reset
    end
end

local requests, tokens, reset = sums(rings[1])
tell(1, org[1], requests, reset)
tell(4, org[2], tokens, reset)
requests, tokens, reset = sums(rings[2])
tell(1, key[2], requests, reset)
tell(4, key[3], tokens, reset)
return reply
