#!/usr/bin/env python3
"""What no-op tasks cost in Parsl or Ray: the measures of bench/flow.rs. See bench/flow.sh."""

import resource
import sys
import tempfile
import time


def cpu():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in (own, children))


def say(text):
    print(text, flush=True)


class Parsl:
    """Threads of this process; with `remember`, memoization and a checkpoint of each task."""

    def __init__(self, remember, threads=2):
        import parsl
        from parsl.config import Config
        from parsl.executors import ThreadPoolExecutor

        self.parsl = parsl
        executor = ThreadPoolExecutor(max_threads=threads)
        self.place = tempfile.TemporaryDirectory()
        config = Config(executors=[executor], run_dir=self.place.name, strategy="none", initialize_logging=False, **memory(remember))
        parsl.load(config)

        def noop(x):
            return x

        def total(*numbers):
            return sum(numbers)

        self.noop = parsl.python_app(noop, cache=remember)
        total = parsl.python_app(total)
        self.total = lambda numbers: total(*numbers)

    def get(self, future):
        return future.result()

    def get_all(self, futures):
        return [future.result() for future in futures]

    def close(self):
        self.parsl.dfk().cleanup()
        self.parsl.clear()
        self.place.cleanup()


def memory(remember):
    """What Parsl remembers: options of its configuration, which moved in 2026."""
    mode = "task_exit" if remember else None
    try:
        from parsl.dataflow.memoization import BasicMemoizer
    except ImportError:
        return {"app_cache": remember, "checkpoint_mode": mode}
    return {"memoizer": BasicMemoizer(memoize=remember, checkpoint_mode=mode)}


class Ray:
    """Two worker processes on this machine; it remembers nothing."""

    def __init__(self, remember, workers=2):
        import ray

        self.ray = ray
        ray.init(num_cpus=workers, include_dashboard=False, logging_level="ERROR")

        @ray.remote
        def noop(x):
            return x

        @ray.remote
        def total(*numbers):
            return sum(numbers)

        self.noop = noop.remote
        self.total = lambda numbers: total.remote(*numbers)
        ray.get([self.noop(x) for x in range(100)])

    def get(self, future):
        return self.ray.get(future)

    def get_all(self, futures):
        return self.ray.get(futures)

    def close(self):
        self.ray.shutdown()


def tasks(peer, count, name):
    begun, busy = time.perf_counter(), cpu()
    values = peer.get_all([peer.noop(x) for x in range(count)])
    wall, used = time.perf_counter() - begun, cpu() - busy
    assert values[-1] == count - 1
    say(f"{name}: {count} no-op functions in {wall:.2f}s ({used:.2f}s CPU of the client): {count / wall:.0f} tasks/s")


def latency(peer):
    spans = []
    for x in range(1_100):
        begun = time.perf_counter()
        peer.get(peer.noop(1_000_000 + x))
        spans.append(time.perf_counter() - begun)
    spans = sorted(spans[100:])
    say(f"latency: p50 {spans[500] * 1e6:.1f}µs, p99 {spans[990] * 1e6:.1f}µs")


def chain(peer, hops):
    begun = time.perf_counter()
    last = peer.noop(1)
    for _ in range(hops - 1):
        last = peer.noop(last)
    assert peer.get(last) == 1
    say(f"chain of {hops}: {(time.perf_counter() - begun) / hops * 1e6:.1f}µs a hop")


def fan_in(peer, count):
    for inputs in (count, 2 * count):
        begun, busy = time.perf_counter(), cpu()
        numbers = [peer.noop(2_000_000 + x) for x in range(inputs)]
        peer.get(peer.total(numbers))
        say(f"fan-in of {inputs}: {time.perf_counter() - begun:.2f}s, {cpu() - busy:.2f}s CPU of the client")


def main():
    kind, count = sys.argv[1], int(sys.argv[2])
    make = {"parsl": Parsl, "ray": Ray}[kind]
    peer = make(remember=False)
    tasks(peer, count, "tasks, nothing remembered")
    latency(peer)
    chain(peer, min(count, 2_000))
    fan_in(peer, count // 2)
    peer.close()
    if kind == "parsl":
        peer = make(remember=True)
        tasks(peer, count, "tasks, memoized, a checkpoint of each")
        peer.close()


main()
