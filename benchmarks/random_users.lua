-- For wrk: GET /recommend for random users out of USERS (a comma list); prints one JSON line.
local users = {}
for id in os.getenv("USERS"):gmatch("[^,]+") do users[#users + 1] = id end

function init(args) math.randomseed(os.time()) end

function request()
  return wrk.format("GET", "/recommend?top_k=10&user_id=" .. users[math.random(#users)])
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50": %.3f, "p95": %.3f, "p99": %.3f, "bad": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
