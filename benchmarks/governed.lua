-- One governed path, again and again.
wrk.path = "/customers/7"

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("DURATION %d\nRESULT %d %d %d\n", summary.duration, summary.requests, e.status,
    e.connect + e.read + e.write + e.timeout))
end
