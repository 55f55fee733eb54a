"""What a process of one side does: starts it, measures, prints one line of JSON. What fails is a reason, no crash."""

import json
import sys
import traceback
from types import SimpleNamespace

from bench.measure import forget_peak, limit_cores, peak_mb, resident_mb, timed


def work(text):
    """Runs the job that is given as JSON."""
    job = SimpleNamespace(**json.loads(text))
    limit_cores(job.threads)
    try:
        answer = _RUNNERS[job.what](job)
    except Exception as error:  # noqa: BLE001 - that a thing cannot be measured here is an answer
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        answer = {"unavailable": f"{type(error).__name__}: {first[:300]}"}
    print(json.dumps(answer), flush=True)
    return 0


def _side(job):
    if job.who == "ours":
        from bench import ours as side
    else:
        from bench import peer as side
    return side


def _model(job):
    """`infer` and `train`."""
    side = _side(job)
    answer = {"import_mb": side.start(job)}
    made = (side.infer if job.what == "infer" else side.train)(job)
    answer |= {key: made[key] for key in ("input", "compiled", "parameters") if key in made}
    answer["built_mb"], answer["times"], highest = resident_mb(), {}, peak_mb()
    for name, call in made["calls"].items():
        first = timed(call, 0, warm_up=0)["first"]
        highest = max(highest, peak_mb())
        forgotten = forget_peak()
        answer["times"][name] = {**timed(call, job.calls, warm_up=0), "first": first}  # its own first call warms up
        if forgotten:
            answer["calls_mb"] = max(peak_mb(), answer.get("calls_mb", 0))
        highest = max(highest, peak_mb())
    answer["peak_mb"] = highest
    answer["device"], answer["device_mb"] = side.device(job)
    answer["flops"], answer["rate"] = made["flops"](), side.matmul_rate(job)
    return answer


def _operators(job):
    from bench import operators

    return operators.measure(job)


def _sizes(job):
    from bench import sizes

    return sizes.measure(job)


def _paste(job):
    from bench import paste

    return paste.measure(job)


_RUNNERS = {"infer": _model, "train": _model, "ops": _operators, "sizes": _sizes, "paste": _paste}


if __name__ == "__main__":
    sys.exit(work(sys.argv[1]))
