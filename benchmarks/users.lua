-- For wrk: GET /recommend for users out of USERS_FILE (an id per line); prints one JSON line. At
-- random or, where START is set, one after the other from that place on, and from the first again.
local users, start = {}, tonumber(os.getenv("START"))
for id in io.lines(os.getenv("USERS_FILE")) do users[#users + 1] = id end
local threads = {}
sent = 0 -- of the thread, whose globals the main one can read

function setup(thread) threads[#threads + 1] = thread end

function init(args) math.randomseed(os.time()) end

function request()
  local place = start and (start + sent) % #users + 1 or math.random(#users)
  sent = sent + 1
  return wrk.format("GET", "/recommend?top_k=10&user_id=" .. users[place])
end

function done(summary, latency, requests)
  local errors, all = summary.errors, 0
  for _, thread in ipairs(threads) do all = all + thread:get("sent") end
  io.write(string.format(
    '{"requests": %d, "asked": %d, "seconds": %.6f, "p50": %.3f, "p95": %.3f, "p99": %.3f, "bad": %d}\n',
    summary.requests, all, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
