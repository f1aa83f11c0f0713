-- Rotates bodies, stops sending when the window is over, paces if asked to, and prints one line of JSON.
--
-- BENCH_BODIES: a file with one JSON body a line. BENCH_KEY: sent as a bearer token if not empty. BENCH_STOP: seconds of the
-- monotonic clock after which nothing more is sent; what was sent is still answered, so that a ledger can be compared to the
-- call. BENCH_RATE: calls a second, 0 for as many as are answered.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } bench_time;
  int clock_gettime(int clock, bench_time *time);
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
asked, inside, first = 0, 0, 0 -- read by `done` through thread:get

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
  asked = asked + 1
  if moment >= stop then return NEVER end
  inside = inside + 1
  if rate == 0 then return 0 end
  due = math.max(due + 1 / rate, moment - 1)
  if due >= stop then return NEVER end
  return math.max(0, math.floor((due - moment) * 1000 + 0.5))
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local counted, within, began = 0, 0, math.huge
  for _, thread in ipairs(threads) do
    counted, within = counted + thread:get("asked"), within + thread:get("inside")
    began = math.min(began, thread:get("first"))
  end
  local failed = summary.errors
  io.write(string.format(
    '\nRESULT {"answered": %d, "asked": %d, "inside": %d, "began": %.6f, "bad_status": %d, "broken": %d, "late": %d, ' ..
    '"p50": %.3f, "p95": %.3f, "p99": %.3f, "max": %.3f, "bytes": %d}\n',
    summary.requests, counted, within, began, failed.status, failed.connect + failed.read + failed.write, failed.timeout,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000, latency.max / 1000, summary.bytes))
end
