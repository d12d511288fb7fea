-- With a file after `--`: its requests in turn, a line each of method, path, body and token between tabs. `#n#` becomes a
-- number.
function init(args)
  if args[1] == nil then return end
  local host = wrk.headers["Host"] or (wrk.host .. ":" .. wrk.port)
  local asks, at, number = {}, 0, 0
  for line in io.lines(args[1]) do
    local method, path, body, token = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    local fields = { ["Content-Type"] = "application/json", ["Host"] = host }
    if token ~= "" then fields["Authorization"] = "Bearer " .. token end
    local ask = { method = method, path = path, body = body, fields = fields }
    if not body:find("#n#", 1, true) then
      ask.whole = wrk.format(method, path, fields, body ~= "" and body or nil)
    end
    asks[#asks + 1] = ask
  end
  request = function()
    at = at % #asks + 1
    local ask = asks[at]
    if ask.whole then return ask.whole end
    number = number + 1
    return wrk.format(ask.method, ask.path, ask.fields, (ask.body:gsub("#n#", number)))
  end
end

-- One line of JSON at the end, with latencies in microseconds.
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"answers": %d, "bad": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": %d}\n',
    summary.requests, e.status, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
