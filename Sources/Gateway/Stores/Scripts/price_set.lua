#!lua
-- Sets a model's price as a new version. Versions never change: their history is kept beside the current ones.
--
-- KEYS[1]  tg:{prices}          KEYS[2]  tg:{prices}:v:model
-- ARGV     model, input, cached input, output, 'seed' (only where the model has no price yet) or empty
-- Reply    {'set' or 'kept', 'version input cached output at'}

local call = redis.call
local current = call('HGET', KEYS[1], ARGV[1])
if current and ARGV[5] == 'seed' then return { 'kept', current } end
call('HLEN', KEYS[2])
local version = 1
if current then version = tonumber(string.match(current, '^%d+')) + 1 end
local t = call('TIME')
local rest = string.format('%s %s %s %.0f', ARGV[2], ARGV[3], ARGV[4], t[1] * 1000 + math.floor(t[2] / 1000))
local record = string.format('%.0f %s', version, rest)
call('HSET', KEYS[2], string.format('%.0f', version), rest)
call('HSET', KEYS[1], ARGV[1], record)
return { 'set', record }
