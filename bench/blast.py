"""What `blast.c` does, with the same arguments and the same answer, by a process for each association."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from bench.load import Sending
from bench.wire import Association, BrokenError, Sent, read

Answer = tuple[list[float], list[int], int, float]
"""Latencies in ms, statuses, bytes, CPU seconds of one process."""


def main() -> None:
    port, called_ae, calling_ae, associations, passes, ending, marker, stamp, *paths = sys.argv[1:]
    fork = multiprocessing.get_context("fork")
    count, results = int(associations), fork.SimpleQueue()
    start, end = fork.Barrier(count + 1), fork.Barrier(count + 1)
    objects = [read(Path(path)) for path in paths]
    stamps = (marker, [str(int(stamp) + number) for number in range(int(passes))])
    for number in range(count):
        share = objects[len(objects) * number // count : len(objects) * (number + 1) // count]
        line = (int(port), called_ae, calling_ae)
        fork.Process(target=_send, args=(line, share, stamps, ending, (start, end), results), daemon=True).start()
    start.wait()
    started = time.perf_counter()
    gathered = []
    for _ in range(count):
        answer = results.get()
        if isinstance(answer, str):
            sys.exit(answer)
        gathered.append(answer)
    print(json.dumps(asdict(_report(gathered, time.perf_counter() - started))), flush=True)
    sys.stdin.read()
    end.wait()


def _send(
    line: tuple[int, str, str],
    share: Sequence[Sent],
    stamps: tuple[str, Sequence[str]],
    ending: str,
    barriers: tuple[Barrier, Barrier],
    results: Any,
) -> None:
    barriers[0].wait()
    try:
        association, answer = _store(line, share, stamps, ending)
    except BrokenError as error:
        results.put(str(error))
        return
    results.put(answer)
    barriers[1].wait()
    if association is not None and ending == "held":
        association.release()


def _store(
    line: tuple[int, str, str], share: Sequence[Sent], stamps: tuple[str, Sequence[str]], ending: str
) -> tuple[Association | None, Answer]:
    contexts = {sent.context for sent in share}
    association = None if ending == "each" else Association(*line, contexts)
    latencies, statuses, size = [], [], 0
    for stamp in stamps[1]:
        for sent in share:
            fresh = sent.renamed(stamps[0], stamp)
            began = time.perf_counter()
            taken = association or Association(*line, contexts)
            statuses.append(taken.store(fresh))
            if association is None:
                taken.release()
            latencies.append((time.perf_counter() - began) * 1e3)
            size += len(sent.data_set)
    if association is not None and ending == "released":
        association.release()
    used = os.times()
    return association, (latencies, statuses, size, used.user + used.system)


def _report(gathered: Sequence[Answer], seconds: float) -> Sending:
    latencies = sorted(latency for each, *_ in gathered for latency in each)
    refused = sum(status != 0 for _, statuses, *_ in gathered for status in statuses)
    size, cpu_s = sum(each[2] for each in gathered), sum(each[3] for each in gathered)
    count = len(latencies)
    tail = (latencies[count // 2], latencies[count * 99 // 100], latencies[-1])
    return Sending(count, size, seconds, cpu_s, refused, *tail)


if __name__ == "__main__":
    main()
