-- Submissions to an authority, each with an idempotency key of its own, as clients send them.
local key, n, salt = os.getenv("BENCH_KEY"), 0, tostring(os.time())
wrk.method = "POST"
wrk.body = '{"agent_id":"billing-api","agent_name":"Billing API","action_type":"data_access","resource":"customer 7",' ..
  '"resource_id":"7","action_details":{"fields":["name","email"],"limit":50},"context":{"channel":"web"},' ..
  '"risk_indicators":{"pii":true}}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-API-Key"] = key
wrk.headers["User-Agent"] = "bench"

function request()
  n = n + 1
  wrk.headers["Idempotency-Key"] = salt .. "-" .. n .. "-" .. math.random(1, 1000000000)
  return wrk.format(nil, "/api/v1/actions/submit")
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("DURATION %d\nRESULT %d %d %d\nLATENCY %d %d\n", summary.duration, summary.requests, e.status,
    e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
