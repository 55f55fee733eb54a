"""Clocks, memory and the machine."""

import os
import time


def timed(call, calls, warm_up=1):
    """Seconds of a call that blocks until its answer is there.

    Returns:
        dict: `first`, wall seconds of the first call, which compiles; `wall` and `cpu`, lists of seconds of the timed
        ones, after `warm_up` more; `answer`, of the last one.
    """
    start = time.perf_counter()
    answer = call()
    times = {"first": round(time.perf_counter() - start, 3), "wall": [], "cpu": []}
    for _ in range(warm_up):
        answer = call()
    for _ in range(calls):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = call()
        times["wall"].append(round(time.perf_counter() - wall, 5))
        times["cpu"].append(round(time.process_time() - cpu, 5))
    return {**times, "answer": answer}


def fastest(call, calls=5):
    """Wall seconds of the fastest of some calls, after one that is not timed."""
    return min(timed(call, calls, warm_up=0)["wall"])


# === Memory ===


def resident_mb():
    """Resident memory of this process now."""
    return _status("VmRSS")


def peak_mb():
    """The most resident memory that this process had since `forget_peak`, or ever."""
    return _status("VmHWM")


def forget_peak():
    """Lets `peak_mb` begin anew; False where the system cannot."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _status(key):
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(f"{key}:"):
                    return round(int(line.split()[1]) / 1024)
    except OSError:
        pass
    import resource  # not Linux: what there is, whatever was asked

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)


# === Machine ===


def limit_cores(count):
    """The process, with all threads that it will start, runs on this many cores; None for all."""
    if count and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def machine(cores=None):
    """What the figures were measured on: processor, cores that were used, what they can, and what else was running."""
    lines = {}
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                key, _, value = line.partition(":")
                lines.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    flags = set(lines.get("flags", "").split())
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": lines.get("model name", "unknown"),
        "cores": min(cores or there, there),
        "units": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"}),
        "load": [round(value, 1) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }
