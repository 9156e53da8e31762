-- One path of each of the first ten routes, again and again.
local n = 0
local requests = {}
function init(args)
  for i = 0, 9 do requests[i] = wrk.format("GET", "/service" .. i .. "/items/7") end
end
function request()
  n = (n + 1) % 10
  return requests[n]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("DURATION %d\nRESULT %d %d %d\n", summary.duration, summary.requests, e.status,
    e.connect + e.read + e.write + e.timeout))
end
