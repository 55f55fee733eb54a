"""The sides of a comparison: which there are, their processes in turn (A B A B ...), what is left of the time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

MAIN = Path(__file__).resolve().parents[1] / "benchmark.py"


def our_sides(arguments, batch):
    """Every combination of the backends, compilations and precisions that were asked for."""
    sides = {}
    for backend in arguments.backend:
        jits = arguments.jit
        if backend == "jax":  # which always compiles, but if it is asked for nothing else than not to
            jits = ["no"] if jits == ["no"] else ["yes"]
        for jit in jits:
            for precision in arguments.precision:
                how = backend if (backend, jit) == ("jax", "yes") else f"{backend} jit={jit}"
                sides[f"keras_rcnn {how} {precision}{_of(batch, arguments)}"] = {
                    "who": "ours",
                    "backend": backend,
                    "jit": jit,
                    "precision": precision,
                    "batch": batch,
                    "python": sys.executable,
                }
    return sides


def peer_sides(arguments, batch):
    """torchvision's forms; none without a Python that has it."""
    return {
        f"torchvision {form}{_of(batch, arguments)}": {
            "who": "peer",
            "form": form,
            "batch": batch,
            "python": arguments.peer,
        }
        for form in (arguments.forms if arguments.peer else [])
    }


def _of(batch, arguments):
    return f" batch {batch}" if len(arguments.batch) > 1 else ""


def in_turn(what, sides, arguments, settings, save=None):
    """Runs every side once a round.

    Args:
        what: the command.
        sides: dict, name -> dict, a side's part of the job.
        arguments: the command line's.
        settings: dict, what all jobs have in common.
        save: called with the results after each process, for who is interrupted.

    Returns:
        `(results, unavailable)`: name -> list of what its processes answered; name -> reason.
    """
    results, unavailable, started = {name: [] for name in sides}, {}, time.monotonic()
    common = {"what": what, "threads": arguments.threads, "calls": arguments.calls, **settings}
    for number in range(arguments.rounds):
        for name, side in sides.items():
            if name in unavailable:
                continue
            left = arguments.seconds - (time.monotonic() - started) if arguments.seconds else None
            if left is not None and left < 10:
                if not results[name]:
                    unavailable[name] = f"not measured: the {arguments.seconds} seconds were over"
                continue
            began = time.monotonic()
            answer = spawn({**common, **side}, left)
            seconds = f"{time.monotonic() - began:.0f} s"
            if "unavailable" in answer and not results[name]:
                unavailable[name] = answer["unavailable"]
            elif "unavailable" not in answer:
                results[name].append(answer)
            print(f"round {number + 1}, {name}: {answer.get('unavailable', seconds)}", file=sys.stderr, flush=True)
            if save:
                save({key: value for key, value in results.items() if value}, unavailable)
    return {key: value for key, value in results.items() if value}, unavailable


def spawn(job, limit=None):
    """One process; its last line is its JSON. `log` is what it wrote to stderr, for who reads that."""
    threads = str(job["threads"] or os.cpu_count())
    environment = os.environ | {
        # waiting threads that spin are ruinous for the peer when anything else runs on the machine
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **job.pop("environment", {}),
    }
    if "backend" in job:
        environment["KERAS_BACKEND"] = job["backend"]
    command = [job.pop("python"), str(MAIN), "--worker", json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit)
    except OSError as error:
        return {"unavailable": f"{command[0]}: {error.strerror}"}
    except subprocess.TimeoutExpired:
        return {"unavailable": f"stopped: the time was over after {limit:.0f} s"}
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        return {"unavailable": f"the process ended with {ended}: {last[:300]}"}
    if "unavailable" in answer and os.environ.get("BENCHMARK_TRACEBACKS"):
        print(done.stderr[-6000:], file=sys.stderr)
    answer["log"] = done.stderr
    return answer


def write(path, answer):
    """The figures as JSON, whole or not at all; nothing without a path."""
    if path:
        part = Path(f"{path}.part")
        part.write_text(json.dumps(answer, indent=2) + "\n")
        part.replace(path)


def print_unavailable(unavailable):
    for name, reason in unavailable.items():
        print(f"{name}: not available: {reason}")
