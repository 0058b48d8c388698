#!/usr/bin/env python3
# examples/prometheus.py: the counters of a runtime in the text format that Prometheus reads
"""python3 examples/prometheus.py [PORT]

With PORT it serves http://127.0.0.1:PORT/metrics until it is stopped. Without one it makes a few
calls, scrapes itself once, prints what a scraper gets and exits with 0 if that is right.

The library opens no port: an application adds text_of(runtime.stats()) to the metrics that it
serves already.
"""

import http.server
import sys
import threading
import urllib.request

import attnrt
import numpy

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def escaped(value):
    """Escapes the value of a label: backslash, quote and line end."""
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def metric(name, kind, help_text, samples):
    """Yields the lines of one metric. samples: pairs of labels and a number."""
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, number in samples:
        text = ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items())
        yield f"{name}{{{text}}} {number}" if text else f"{name} {number}"


def labels_of(candidate):
    """Says which candidate it is. The hash tells two files of one version apart."""
    device = candidate["device"]
    return {
        "backend": candidate["name"],
        "version": candidate["version"],
        "sha256": candidate["sha256"][:12],
        "device": device if device == "cpu" else f"{device}:{candidate['device_id']}",
    }


def text_of(stats):
    """Maps what Runtime.stats() returns to the text format of Prometheus."""
    candidates = [(labels_of(each), each) for each in stats["candidates"]]
    if stats["earlier"]:  # those that are gone, added up, so that sums never shrink
        earlier = dict.fromkeys(("backend", "version", "sha256", "device"), "earlier")
        candidates.append((earlier, stats["earlier"]))
    decision_cache, plan_cache = stats["decision_cache"], stats["plan_cache"]

    def of_each(field):
        return [(labels, each[field]) for labels, each in candidates if field in each]

    failures = [
        (labels | {"stage": failure["stage"], "status": failure["status"]}, failure["count"])
        for labels, each in candidates
        for failure in each["failures"]
    ]
    quarantine = [
        (labels | {"event": event}, count)
        for labels, each in candidates
        for event, count in each["quarantine"].items()
    ]
    rollouts = [
        (
            {"backend": each["name"], "version": each["version"], "phase": each["phase"]},
            each["clean"],
        )
        for each in stats["rollouts"]
    ]
    lookups = [
        ({"cache": name, "result": result}, cache[result])
        for name, cache in (("decision", decision_cache), ("plan", plan_cache))
        for result in ("hits", "misses")
    ]
    reloads = [
        ({"result": "done"}, stats["reloads"]),
        ({"result": "failed"}, stats["failed_reloads"]),
    ]
    metrics = [
        ("plans_total", "counter", "Plans made.", of_each("plans")),
        ("runs_total", "counter", "Runs that succeeded.", of_each("runs")),
        ("failures_total", "counter", "Failures by stage and class.", failures),
        ("failovers_total", "counter", "Failovers to the next candidate.", of_each("failovers")),
        ("quarantine_events_total", "counter", "What the breaker did.", quarantine),
        ("held_bytes", "gauge", "Bytes that all plans hold.", of_each("held_bytes")),
        ("idle_bytes", "gauge", "Bytes that idle plans hold.", of_each("idle_bytes")),
        ("rollout_clean", "gauge", "Clean runs of a rollout's phase.", rollouts),
        ("reloads_total", "counter", "Reloads.", reloads),
        ("decisions_total", "counter", "New decisions.", [({}, stats["decisions"])]),
        ("cache_lookups_total", "counter", "Lookups in the caches.", lookups),
        ("plan_evictions_total", "counter", "Evicted plans.", [({}, plan_cache["evictions"])]),
        ("mapped_plugins", "gauge", "Mapped libraries.", [({}, stats["mapped_plugins"])]),
    ]
    lines = [line for name, *rest in metrics for line in metric(f"attnrt_{name}", *rest)]
    return "\n".join(lines) + "\n"


def server_of(runtime, port):
    """Returns an HTTP server of the runtime's counters. port: 0 takes a free one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = text_of(runtime.stats()).encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Writes no line for each scrape."""

    return http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main():
    runtime = attnrt.Runtime()
    q = numpy.ones((1, 4, 2, 8), "float32")
    calls = 3
    for _ in range(calls):
        runtime.attention(q, q, q)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = server_of(runtime, port)
    if port:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
        text = answer.read().decode()
    server.shutdown()
    print(text, end="")
    runs = [line for line in text.splitlines() if line.startswith("attnrt_runs_total{")]
    if [line.split()[-1] for line in runs] != [str(calls)]:
        sys.exit(f"expected one backend with {calls} runs, found {runs}")


if __name__ == "__main__":
    main()
