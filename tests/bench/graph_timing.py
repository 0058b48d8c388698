"""tests/bench/graph_timing.py: times GPU calls side by side by replays of captured graphs.

A graph holds enough calls for SAMPLE_MS, but at most MOST_CALLS, so that the host's time does not
count. Graphs are replayed in turn, one replay of each in a round, so that all run at the same GPU
frequency.
"""

import dataclasses
import statistics
import time

import torch

SAMPLE_MS = 2.0  # milliseconds of one replay
ROUNDS = 20
MOST_CALLS = 400  # in a graph
HOST_CALLS = 50  # of which the host's time is taken


@dataclasses.dataclass
class Times:
    """Of one contestant: GPU milliseconds of a call in each round, and host microseconds."""

    ms: list
    host_us: float

    @property
    def median_ms(self):
        return statistics.median(self.ms)


def elapsed_ms(call, count=1):
    """Returns the GPU's milliseconds of `count` calls in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(count):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def host_us(call):
    """Returns the median microseconds that the host spends in a call."""
    samples = []
    for _ in range(HOST_CALLS):
        start = time.perf_counter()
        call()
        samples.append((time.perf_counter() - start) * 1e6)
    torch.cuda.synchronize()
    return statistics.median(samples)


def graph_of(call, count):
    """Returns a graph of so many calls."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    return graph


def captured(call):
    """Returns a graph of some calls, and how many it holds."""
    for _ in range(3):  # warms up
        call()
    torch.cuda.synchronize()
    count = max(1, min(MOST_CALLS, int(SAMPLE_MS / max(1e-3, elapsed_ms(call, 3) / 3)) + 1))
    graph = graph_of(call, count)
    graph.replay()
    torch.cuda.synchronize()
    # Host time may have limited the first measurement, which makes count too small.
    once = elapsed_ms(graph.replay) / count
    wanted = max(1, min(MOST_CALLS, int(SAMPLE_MS / once) + 1))
    return (graph_of(call, wanted), wanted) if wanted > count else (graph, count)


def times_in_turn(calls, rounds=ROUNDS):
    """Returns the Times of each call. calls: by the contestant's name."""
    graphs = {name: captured(call) for name, call in calls.items()}
    ms = {name: [] for name in calls}
    for round_number in range(rounds + 1):  # the first warms up
        for name, (graph, count) in graphs.items():
            once = elapsed_ms(graph.replay) / count
            if round_number > 0:
                ms[name].append(once)
    return {name: Times(ms[name], host_us(call)) for name, call in calls.items()}


def ratio(ours, theirs):
    """Returns quartiles (25, 50, 75 %) of how many times as fast ours is, round by round."""
    return statistics.quantiles([b / a for a, b in zip(ours.ms, theirs.ms, strict=True)], n=4)
