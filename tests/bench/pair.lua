-- The load of wrk, with one thread: a POST, and what ends it, in turn.
--
--   pair.lua styxy|noop SEED CONNECTIONS PID...
--
-- Every request has a body of its own: another lock id, and one of the living processes. The first
-- DELETEs come when their POSTs are answered for sure. At the end one line of JSON is printed.

local json = { ["Content-Type"] = "application/json" }
local form = '{"service_type":"dev","process_id":%s,"lock_id":"%s"}'
local contender, seed, lag
local pids = {}
local is_first, posted, ended = true, 0, 0

function init(arguments)
    contender, seed, lag = arguments[1], tonumber(arguments[2]), 2 * tonumber(arguments[3])
    if lag == 2 then lag = 1 end
    for index = 4, #arguments do pids[#pids + 1] = arguments[index] end
end

local function lock_id(number)
    return string.format("%08x-0000-4000-8000-%012x", seed, number)
end

function request()
    if is_first then
        -- wrk asks once to look at it, and does not send it.
        is_first = false
        return wrk.format("POST", "/allocate", json, "{}")
    end
    if posted - ended >= lag then
        ended = ended + 1
        if contender == "styxy" then
            return wrk.format("DELETE", "/allocate/" .. lock_id(ended))
        end
    else
        posted = posted + 1
    end
    local body = string.format(form, pids[posted % #pids + 1], lock_id(posted))
    return wrk.format("POST", "/allocate", json, body)
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\nJSON {"requests":%d,"rate":%f,"p50":%f,"p99":%f,"failed":%d}\n',
        summary.requests, summary.requests / summary.duration * 1e6,
        latency:percentile(50), latency:percentile(99),
        errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
