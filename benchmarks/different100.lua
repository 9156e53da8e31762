-- 100 routes in turn, every path different.
local n = 0
function request()
  n = n + 1
  return wrk.format("GET", "/service" .. (n % 100) .. "/items/" .. n)
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("DURATION %d\nRESULT %d %d %d\n", summary.duration, summary.requests, e.status,
    e.connect + e.read + e.write + e.timeout))
end
