-- Rotates bodies, stops sending when the window is over, paces if asked to, and prints one line of JSON.
--
-- BENCH_BODIES: a file with one JSON body a line. BENCH_KEY: sent as a bearer token if not empty. BENCH_STOP: seconds of the
-- monotonic clock after which nothing more is sent; what was sent is still answered, so that a ledger can be compared to the
-- call. BENCH_RATE: calls a second, 0 for as many as are answered.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } bench_time;
  int clock_gettime(int clock, bench_time *time);
  typedef struct { uint64_t count, limit, min, max; uint64_t data[]; } bench_stats;
]]
local MONOTONIC, NEVER = 1, 10000000
local time = ffi.new("bench_time")

local function now()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) * 1e-9
end

local threads = {}
function setup(thread)
  table.insert(threads, thread)
end

local requests, at, stop, rate, due = {}, 0, 0, 0, nil
sent, inside, first = 0, 0, 0 -- read by `done` through thread:get

function init(args)
  stop, rate = tonumber(os.getenv("BENCH_STOP")), tonumber(os.getenv("BENCH_RATE"))
  local headers, key = { ["Content-Type"] = "application/json" }, os.getenv("BENCH_KEY")
  if key ~= "" then headers["Authorization"] = "Bearer " .. key end
  for line in io.lines(os.getenv("BENCH_BODIES")) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, line)
  end
end

-- Called before the first request of each connection and after each answer.
function delay()
  local moment = now()
  if first == 0 then first, due = moment, moment end
  if moment >= stop then return NEVER end
  inside = inside + 1
  if rate == 0 then
    sent = sent + 1
    return 0
  end
  due = math.max(due + 1 / rate, moment - 1)
  if due >= stop then return NEVER end
  sent = sent + 1
  return math.max(0, math.floor((due - moment) * 1000 + 0.5))
end

function request()
  at = at % #requests + 1
  return requests[at]
end

-- wrk 4.1 adds, for each latency longer than twice the mean interval of a connection, made-up ones that are shorter by one
-- interval, by two, and so on (its correction for coordinated omission). Models with long and short inputs would get a wrong
-- median by it. For x above the interval e it leaves D[x] = C[x] + C[x + e] + C[x + 2e] + ..., so C[x] = D[x] - D[x + e].
local function measured(latency, summary, connections)
  local stats = ffi.cast("bench_stats **", latency)[0]
  local low, high = tonumber(stats.min), tonumber(stats.max)
  local turns = math.floor(summary.requests / connections)
  local interval = turns > 0 and math.floor(summary.duration / turns) or high + 1
  local counts, total = {}, 0
  for x = low, high do
    local count = tonumber(stats.data[x])
    if x > interval and x + interval <= high then count = count - tonumber(stats.data[x + interval]) end
    counts[x], total = count, total + count
  end
  return counts, total, low, high
end

local function percentiles(counts, total, low, high, wanted)
  local found, seen, at = {}, 0, 1
  for x = low, high do
    seen = seen + counts[x]
    while wanted[at] and seen >= math.ceil(wanted[at] * total) do
      found[at], at = x / 1000, at + 1
    end
  end
  return found
end

function done(summary, latency, _)
  local counted, within, began = 0, 0, math.huge
  for _, thread in ipairs(threads) do
    counted, within = counted + thread:get("sent"), within + thread:get("inside")
    began = math.min(began, thread:get("first"))
  end
  local counts, total, low, high = measured(latency, summary, tonumber(os.getenv("BENCH_CONNECTIONS")))
  local p = percentiles(counts, total, low, high, { 0.5, 0.95, 0.99 })
  local failed = summary.errors
  io.write(string.format(
    '\nRESULT {"answered": %d, "sent": %d, "inside": %d, "began": %.6f, "bad_status": %d, "broken": %d, "late": %d, ' ..
    '"samples": %d, "p50": %.3f, "p95": %.3f, "p99": %.3f, "max": %.3f, "bytes": %d}\n',
    summary.requests, counted, within, began, failed.status, failed.connect + failed.read + failed.write, failed.timeout,
    total, p[1] or 0, p[2] or 0, p[3] or 0, high / 1000, summary.bytes))
end
