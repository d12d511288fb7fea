-- One line of JSON at the end, with latencies in microseconds.
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"answers": %d, "bad": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": %d}\n',
    summary.requests, e.status, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
