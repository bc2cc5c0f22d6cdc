-- One request, always the same, made once; the environment says which. The result as JSON.
local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local made

init = function(args)
  wrk.method = "POST"
  wrk.body = read(args[1])
  for name, value in read(args[2]):gmatch("([^\n:]+): ([^\n]*)\n") do
    wrk.headers[name] = value
  end
  made = wrk.format()
end

request = function() return made end

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "microseconds": %d, "p50_us": %d, "p99_us": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
