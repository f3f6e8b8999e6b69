#!lua flags=allow-oom
-- SYNC: the one script that spends. LedgerModel.sync is its specification; the Auditor holds the two equal.
--
-- KEYS[1]  tg:{org}:a
-- ARGV     now (tests only; empty means this server's clock), S, incarnation, counter, first, floor, holds, want,
--          #charges, #returns, #slots, #admissions, then
--          charge:    amount, request, key, model, price version, prompt, cached, completion, estimated, at,
--                     booked second, unused tokens
--          return:    key, second, tokens
--          slots:     key, running
--          admission: key, hold, tokens
-- Reply    integers: status, applied, lent, balance, available, overspent, now, and for each admission: outcome, two
--          arguments, then limit, remaining and reset of requests and of tokens (limit -1: unlimited).
--
-- Everything is read, and so every type checked, before anything is written: an error rolls nothing back. Amounts
-- stay below 2^53 and are printed with %.0f. Money changes in one HSET of absolute values.

local call, floor = redis.call, math.floor
local find, match, sub, format = string.find, string.match, string.sub, string.format
local pack, unpackstruct = struct.pack, struct.unpack
local ARGV = ARGV
local account = KEYS[1]
local prefix = sub(account, 1, -2)
local S = ARGV[2]

-- status:   0 ok, 1 gap, 2 stale, 3 fenced, 4 unknown org
-- outcome:  0 granted (second, tokens), 1 key invalid, 2 org suspended, 3 larger than the limit (tokens, limit),
--           4 requests a minute (limit, wait), 5 tokens a minute (limit, wait), 6 concurrency (limit),
--           7 balance (1 if it may come back)
-- Functions capture as few locals as they can: each captured one costs at every call of the script.

-- Clock and account -------------------------------------------------------------------------------------------------

local now
if ARGV[1] == '' then
    local t = call('TIME')
    now = t[1] * 1000 + floor(t[2] / 1000)
else
    now = tonumber(ARGV[1])
end

local a = call('HMGET', account, 'bal', 'credit', 'now', 'lent', 'status', 'q:' .. S, 'l:' .. S, 'f:' .. S)
if not a[1] then return { 4, 0, 0, 0, 0, 0, now } end
local bal, credit, before, lentAll = tonumber(a[1]), tonumber(a[2]), tonumber(a[3]), tonumber(a[4])
local q = tonumber(a[6] or 0)
local incarnation, counter, lent = 0, 0, 0
if a[7] then
    local i, c, l = match(a[7], '^(%d+) (%d+) (-?%d+)$')
    incarnation, counter, lent = tonumber(i), tonumber(c), tonumber(l)
end
if not (bal and credit and before and lentAll and q and lent) then
    return redis.error_reply('LEDGER the account ' .. account .. ' is malformed')
end
if before > now then now = before end
local second = floor(now / 1000)
local others = lentAll - lent

local first = tonumber(ARGV[5])
if first > q + 1 then return { 1, q, lent, bal, bal + credit - others, 0, now } end

-- Rate windows: 71 buckets of one second in a ring (60 past, the present, 10 ahead), packed: present second, newest
-- booked second, requests, tokens; then for each bucket requests and tokens. Read whole, written in pieces: copying a
-- window costs more than all else here.

-- 32 bytes of sums, then 71 buckets of 12: 884 bytes.

local windows, rings = {}, {}

-- Windows of a scope that this call is sure to look at, in one command. MGET knows no wrong type; SET replaces one.
local function prefetch(key)
    local scope = 'k:' .. key
    local found = call('MGET', prefix .. 'w:o', prefix .. 'w:' .. scope)
    rings['o'], rings[scope] = found[1], found[2]
end

local function bucket(w, index)
    local changed = w.changed[index]
    if changed then return changed[1], changed[2] end
    if not w.ring then return 0, 0 end
    return unpackstruct('<I4d', w.ring, 33 + index * 12)
end

local function setbucket(w, index, requests, tokens)
    if not w.changed[index] then w.pieces = w.pieces + 1 end
    w.changed[index] = { requests, tokens }
end

-- The window of a scope, aged to now; false where it is not there and `create` is not asked.
local function window(scope, create)
    local w = windows[scope]
    if w == nil then
        w = false
        local ring = rings[scope]
        if ring == nil then ring = call('MGET', prefix .. 'w:' .. scope)[1] end
        if ring and #ring == 884 then
            local at, newest, requests, tokens = unpackstruct('<dddd', ring)
            if second - at < 71 then
                w = { at = at, newest = newest, requests = requests, tokens = tokens, ring = ring, changed = {}, pieces = 0 }
                for leaving = at - 60, second - 61 do
                    local index = leaving % 71
                    local r, t = bucket(w, index)
                    if r > 0 or t > 0 then
                        w.requests = w.requests - r
                        w.tokens = w.tokens - t
                        setbucket(w, index, 0, 0)
                    end
                end
            end
        end
        windows[scope] = w
    end
    if not w and create then
        w = { at = second, newest = 0, requests = 0, tokens = 0, changed = {}, pieces = 0 }
        windows[scope] = w
    end
    return w
end

local function writewindow(scope, w)
    local key = prefix .. 'w:' .. scope
    local header = pack('<dddd', second, w.newest, w.requests, w.tokens)
    if w.ring and w.pieces <= 6 then
        call('SETRANGE', key, 0, header)
        for index, b in pairs(w.changed) do
            call('SETRANGE', key, 32 + index * 12, pack('<I4d', b[1], b[2]))
        end
        if w.at ~= second then call('EXPIRE', key, 140) end
        return
    end
    local parts = { header }
    for index = 0, 70 do parts[index + 2] = pack('<I4d', bucket(w, index)) end
    call('SET', key, table.concat(parts), 'EX', 140)
end

local function giveback(scope, booked, count)
    local w = window(scope, false)
    if not w then return end
    local index = booked % 71
    local r, t = bucket(w, index)
    if count > t then count = t end
    if count > 0 then
        setbucket(w, index, r, t - count)
        w.tokens = w.tokens - count
        w.dirty = true
    end
end

local function unused(key, booked, count)
    if count > 0 and booked >= second - 60 and booked <= second + 10 then
        giveback('o', booked, count)
        giveback('k:' .. key, booked, count)
    end
end

local function book(w, tokens)
    local index = second % 71
    local r, t = bucket(w, index)
    setbucket(w, index, r + 1, t + tokens)
    w.requests = w.requests + 1
    w.tokens = w.tokens + tokens
    w.newest = second
    w.dirty = true
end

-- Milliseconds until `excess` requests (which = 1) or tokens (which = 2) have aged out, at most 60,000.
local function wait(w, excess, which)
    local aged = 0
    for s = second - 60, second + 10 do
        local r, t = bucket(w, s % 71)
        aged = aged + (which == 1 and r or t)
        if aged >= excess then
            local ms = (s + 61) * 1000 - now
            return ms > 60000 and 60000 or (ms < 1 and 1 or ms)
        end
    end
    return 60000
end

-- 1. Charges above q --------------------------------------------------------------------------------------------------

local charges, returns, slots, admissions = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local at = 13 + 12 * charges
local from = 13 + 12 * (q + 1 - first)
local applied = q + floor((at - from) / 12)
if applied < q then applied = q end
local hasCharges = from < at
local entriesKey, usageKey
local groups, groupNames = {}, {}
local charged = 0

if hasCharges then
    -- Civil date of the store's clock, in UTC (Hinnant).
    local z = floor(now / 86400000) + 719468
    local era = floor(z / 146097)
    local doe = z - era * 146097
    local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
    local mp = floor((5 * doy + 2) / 153)
    local month = mp < 10 and mp + 3 or mp - 9
    local year = yoe + era * 400 + (month <= 2 and 1 or 0)
    entriesKey = format('%se:%04d-%02d', prefix, year, month)
    usageKey = format('%su:%04d-%02d-%02d', prefix, year, month, doy - floor((153 * mp + 2) / 5) + 1)
    prefetch(ARGV[from + 2])
    for i = from, at - 1, 12 do
        charged = charged + ARGV[i]
        local name = ARGV[i + 2] .. ' ' .. ARGV[i + 3]
        local g = groups[name]
        if not g then
            g = { 0, 0, 0, 0, 0 }
            groups[name] = g
            groupNames[#groupNames + 1] = name
        end
        g[1] = g[1] + 1
        g[2] = g[2] + ARGV[i + 5]
        g[3] = g[3] + ARGV[i + 6]
        g[4] = g[4] + ARGV[i + 7]
        g[5] = g[5] + ARGV[i]
        unused(ARGV[i + 2], tonumber(ARGV[i + 10]), tonumber(ARGV[i + 11]))
    end
    bal = bal - charged
    local known = call('HMGET', usageKey, unpack(groupNames))
    for n = 1, #groupNames do
        if known[n] then
            local g = groups[groupNames[n]]
            local r, p, c, o, m = match(known[n], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
            g[1], g[2], g[3], g[4], g[5] = g[1] + r, g[2] + p, g[3] + c, g[4] + o, g[5] + m
        end
    end
end

-- 2. Late calls and retired journals change nothing more ---------------------------------------------------------------

local status = 0
local revI, revC = tonumber(ARGV[3]), tonumber(ARGV[4])
if a[8] then
    status = 3
elseif a[7] and (revI < incarnation or (revI == incarnation and revC <= counter)) then
    status = 2
end

-- 3. and 4. Admissions in order of arrival -----------------------------------------------------------------------------

local available = bal + credit - others
if status ~= 0 then
    -- What a late call charges was lent, and is lent no longer.
    lent = lent - charged
    if lent < 0 then lent = 0 end
end
local asked = tonumber(ARGV[6])
-- A gateway that does not know how much of its journal is applied counts charges in its floor that are paid: of such a
-- floor, what there is and what it was lent before cover all that it can owe, and more would lend what is not there.
local honoured = asked
if applied > first + charges - 1 then
    -- None of its charges was new, so nothing of what was lent has been charged by this call.
    local cover = lent
    if cover < available then cover = available end
    if cover < honoured then honoured = cover end
end
local reply = { status, applied, lent, bal, available, 0, now }
local own, ownKeys, ownTotal, granted, running = {}, {}, 0, 0, honoured

local slotsKey = prefix .. 's'
local expired

if status == 0 then
    for _ = 1, returns do
        unused(ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]))
        at = at + 3
    end
    for _ = 1, slots do
        local key, count = ARGV[at], tonumber(ARGV[at + 1])
        if count > 0 then
            if not own[key] then
                own[key] = 0
                ownKeys[#ownKeys + 1] = key
            end
            own[key] = own[key] + count
            ownTotal = ownTotal + count
        end
        at = at + 2
    end
    if admissions > 0 then
        local o = call('HMGET', prefix .. 'limits', 'rpm', 'tpm', 'conc')
        local orpm, otpm, oslots = tonumber(o[1] or nil), tonumber(o[2] or nil), tonumber(o[3] or nil)
        -- A journal's word: "until total;key=count;key=count;".
        local held, heldTotal = {}, 0
        local words = call('HGETALL', slotsKey)
        for i = 1, #words, 2 do
            if words[i] ~= S then
                local untilMs, total = match(words[i + 1], '^(%d+) (%d+);')
                if tonumber(untilMs) > now then
                    heldTotal = heldTotal + total
                    held[#held + 1] = words[i + 1]
                else
                    expired = expired or {}
                    expired[#expired + 1] = words[i]
                end
            end
        end
        local keys = {}
        for _ = 1, admissions do
            local key = ARGV[at]
            local k = keys[key]
            if not k then
                k = call('HMGET', prefix .. 'k:' .. key, 'status', 'rpm', 'tpm', 'conc')
                k.rpm, k.tpm, k.slots = tonumber(k[2] or nil), tonumber(k[3] or nil), tonumber(k[4] or nil)
                keys[key] = k
            end
            local hold, tokens = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
            local code, x, y, wo, wk = 0, 0, 0, false, false
            repeat
                if k[1] ~= 'active' then
                    code = 1
                    break
                end
                wo = (orpm or otpm) and window('o', true)
                wk = (k.rpm or k.tpm) and window('k:' .. key, true)
                if a[5] ~= 'active' then
                    code = 2
                    break
                end

                local limit = otpm
                if k.tpm and not (limit and limit <= k.tpm) then limit = k.tpm end
                if limit and tokens > limit then
                    code, x, y = 3, tokens, limit
                    break
                end
                -- Where several scopes refuse, the longest wait is told: less would not help.
                local longest, named
                if orpm and wo.requests >= orpm then longest, named = wait(wo, wo.requests + 1 - orpm, 1), orpm end
                if k.rpm and wk.requests >= k.rpm then
                    local ms = wait(wk, wk.requests + 1 - k.rpm, 1)
                    if not longest or ms > longest then longest, named = ms, k.rpm end
                end
                if longest then
                    code, x, y = 4, named, longest
                    break
                end
                if otpm and wo.tokens + tokens > otpm then
                    longest, named = wait(wo, wo.tokens + tokens - otpm, 2), otpm
                end
                if k.tpm and wk.tokens + tokens > k.tpm then
                    local ms = wait(wk, wk.tokens + tokens - k.tpm, 2)
                    if not longest or ms > longest then longest, named = ms, k.tpm end
                end
                if longest then
                    code, x, y = 5, named, longest
                    break
                end

                if oslots and heldTotal + ownTotal >= oslots then
                    code, x = 6, oslots
                    break
                end
                if k.slots then
                    local count = own[key] or 0
                    local mark = ';' .. key .. '='
                    for i = 1, #held do
                        local _, last = find(held[i], mark, 1, true)
                        if last then count = count + match(held[i], '^%d+', last + 1) end
                    end
                    if count >= k.slots then
                        code, x = 6, k.slots
                        break
                    end
                end
                if hold > available - running then
                    code, x = 7, bal + credit >= hold and 1 or 0
                    break
                end

                if wo then book(wo, tokens) end
                if wk then book(wk, tokens) end
                running = running + hold
                granted = granted + 1
                if not own[key] then
                    own[key] = 0
                    ownKeys[#ownKeys + 1] = key
                end
                own[key] = own[key] + 1
                ownTotal = ownTotal + 1
                x, y = second, tokens
            until true

            -- Of requests and of tokens, the scope with the least remaining; the org's where two are alike.
            local rl, rr, rs, tl, tr, ts = -1, 0, 0, -1, 0, 0
            if wo then
                local reset = wo.requests > 0 and (wo.newest + 61) * 1000 - now or 0
                if orpm then rl, rr, rs = orpm, wo.requests < orpm and orpm - wo.requests or 0, reset end
                if otpm then tl, tr, ts = otpm, wo.tokens < otpm and otpm - wo.tokens or 0, reset end
            end
            if wk then
                local reset = wk.requests > 0 and (wk.newest + 61) * 1000 - now or 0
                if k.rpm then
                    local left = wk.requests < k.rpm and k.rpm - wk.requests or 0
                    if rl < 0 or left < rr then rl, rr, rs = k.rpm, left, reset end
                end
                if k.tpm then
                    local left = wk.tokens < k.tpm and k.tpm - wk.tokens or 0
                    if tl < 0 or left < tr then tl, tr, ts = k.tpm, left, reset end
                end
            end
            local n = #reply
            reply[n + 1], reply[n + 2], reply[n + 3] = code, x, y
            reply[n + 4], reply[n + 5], reply[n + 6] = rl, rr, rs
            reply[n + 7], reply[n + 8], reply[n + 9] = tl, tr, ts
            at = at + 3
        end
    else
        call('HLEN', slotsKey)
    end
elseif not hasCharges then
    return reply
end

-- Writes: nothing above this line has changed anything, nothing below it can fail on a type ------------------------------

if hasCharges then
    local stamp = format('%.0f-*', now)
    for i = from, 12 + 12 * charges, 12 do
        local entry = table.concat(ARGV, ' ', i, i + 9)
        local id = redis.pcall('XADD', entriesKey, stamp, 'settle', entry)
        -- Only where the stream is ahead of the account's clock, after a store lost part of its writes.
        if type(id) == 'table' then call('XADD', entriesKey, '*', 'settle', entry) end
    end
    local fields = {}
    for n = 1, #groupNames do
        local g = groups[groupNames[n]]
        fields[2 * n - 1] = groupNames[n]
        fields[2 * n] = format('%.0f %.0f %.0f %.0f %.0f', g[1], g[2], g[3], g[4], g[5])
    end
    call('HSET', usageKey, unpack(fields))
end
for scope, w in pairs(windows) do
    if w and w.dirty then writewindow(scope, w) end
end
if status ~= 0 then
    call('HSET', account, 'bal', format('%.0f', bal), 'now', format('%.0f', now), 'lent', format('%.0f', others + lent),
        'q:' .. S, format('%.0f', applied), 'l:' .. S, format('%.0f %.0f %.0f', incarnation, counter, lent))
    return reply
end

if expired then call('HDEL', slotsKey, unpack(expired)) end
if ownTotal > 0 then
    local word = { format('%.0f %.0f;', now + 10000, ownTotal) }
    for i = 1, #ownKeys do
        word[i + 1] = ownKeys[i] .. '=' .. own[ownKeys[i]] .. ';'
    end
    call('HSET', slotsKey, S, table.concat(word))
else
    call('HDEL', slotsKey, S)
end

local want = tonumber(ARGV[8]) + running - asked
if want > available then want = available end
lent = running > want and running or want
reply[3] = lent
reply[6] = honoured > available and 1 or 0
call('HSET', account, 'bal', format('%.0f', bal), 'now', format('%.0f', now), 'lent', format('%.0f', others + lent),
    'q:' .. S, format('%.0f', applied), 'l:' .. S, format('%s %s %.0f', ARGV[3], ARGV[4], lent),
    'o:' .. S, format('%.0f %.0f', running, ARGV[7] + granted))
return reply
