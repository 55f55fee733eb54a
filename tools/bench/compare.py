"""`infer`, `train` and `paste`: the table of the sides."""

import statistics
import sys

from bench.measure import machine
from bench.sides import in_turn, our_sides, peer_sides, print_unavailable, write


def compare_models(arguments):
    """`infer` and `train`."""
    sides = {}
    for batch in arguments.batch:  # who runs out of time has the smaller batch complete
        sides |= {**our_sides(arguments, batch), **peer_sides(arguments, batch)}
    settings = {
        "model": arguments.model,
        "weights": arguments.weights,
        "photo": arguments.photo,
        "size": arguments.size,
        "rate": arguments.rate,
    }

    def save(results, unavailable):
        forms = {name: side for name, side in sides.items() if name in results}
        answer = {"command": arguments.what, **settings, "rounds": arguments.rounds, "calls": arguments.calls}
        answer |= {"machine": where, "sides": rows(results, forms), "unavailable": unavailable}
        write(arguments.json, answer)
        return answer

    where = machine(arguments.threads)
    answer = save(*in_turn(arguments.what, sides, arguments, settings, save))
    print_models(answer)
    return 0 if answer["sides"] else 1


def rows(results, sides):
    """What a table says of each side: medians over all timed calls of all rounds, the most of the memory."""
    table = {}
    for name, runs in results.items():
        row = {"batch": sides[name]["batch"]}
        for part in runs[0]["times"]:
            for key in ("wall", "cpu"):
                row[f"{part}_{key}"] = statistics.median(t for run in runs for t in run["times"][part][key])
            row[f"{part}_all"] = [run["times"][part]["wall"] for run in runs]
        first = next(iter(runs[0]["times"]))
        row["images_a_second"] = round(row["batch"] / row[f"{first}_wall"], 3)
        row["first_call"] = statistics.median(run["times"][first]["first"] for run in runs)
        for key in ("import_mb", "built_mb", "calls_mb", "peak_mb", "device_mb", "rate"):
            values = [run[key] for run in runs if run.get(key) is not None]
            row[key] = max(values) if values else None
        row |= {key: runs[0].get(key) for key in ("input", "compiled", "parameters", "flops", "device")}
        row["answer"] = runs[0]["times"][first]["answer"]
        table[name] = row
    eager = {row["batch"]: row["flops"] for name, row in table.items() if name.startswith("torchvision eager")}
    for name, row in table.items():
        # a compiled peer does as much as an eager one
        row["flops"] = row["flops"] or (eager.get(row["batch"]) if name.startswith("torchvision") else None)
        busy = row.get("graph_wall") or row.get("step_wall")
        row["share"] = round(row["flops"] / busy / row["rate"], 4) if row["flops"] and row["rate"] else None
    return table


def print_models(answer):
    table = answer["sides"]
    what = f"{answer['machine']['processor']}, {answer['machine']['cores']} cores, load {answer['machine']['load']}"
    print(f"{answer['command']} {answer['model']}: {what}")
    width = max(map(len, table), default=0) + 2
    graph = "graph s" if answer["command"] == "infer" else ""
    heads = ("images/s", "wall s", "CPU s", graph, "first s", "import MB", "peak MB", "device MB")
    heads += ("GFLOP", "peak GF/s", "share")
    print(" " * width + "".join(f"{head:>10}" for head in heads) + "  input, answer")
    for name, row in table.items():
        part = "photos" if "photos_wall" in row else "step"
        giga = None if row["flops"] is None else row["flops"] / 1e9
        cells = (
            f"{row['images_a_second']:.2f}",
            f"{row[part + '_wall']:.3f}",
            f"{row[part + '_cpu']:.3f}",
            f"{row['graph_wall']:.3f}" if "graph_wall" in row else "",
            f"{row['first_call']:.1f}",
            row["import_mb"],
            row["peak_mb"],
            row["device_mb"] or "-",
            f"{giga:.0f}" if giga else "-",
            f"{row['rate'] / 1e9:.0f}",
            f"{row['share']:.2f}" if row["share"] else "-",
        )
        inputs = " x ".join(map(str, row["input"]))
        print(f"{name:{width}}" + "".join(f"{cell:>10}" for cell in cells) + f"  {inputs}, {_short(row['answer'])}")
    print_unavailable(answer["unavailable"])


def _short(answer):
    return ", ".join(f"{key} {value}" for key, value in answer.items() if key != "scores")


def compare_paste(arguments):
    """`paste`: ours, torchvision's probabilities, and those made boolean."""
    sides = {"keras_rcnn": {"who": "ours", "python": sys.executable}}
    if arguments.peer:
        sides["torchvision"] = {"who": "peer", "form": "probabilities", "python": arguments.peer}
        sides["torchvision, to boolean"] = {"who": "peer", "form": "boolean", "python": arguments.peer}
    results, unavailable = in_turn("paste", sides, arguments, {"masks": arguments.masks, "size": arguments.size})
    table = {}
    for name, runs in results.items():
        table[name] = {
            **{key: statistics.median(t for run in runs for t in run["times"][key]) for key in ("wall", "cpu")},
            "memory_mb": max(run["memory_mb"] for run in runs),
            "found": runs[0]["found"],
        }
    what = "{} masks, {} x {}".format(arguments.masks, *arguments.size)
    print(what)
    print(f"{'':28}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}{'pixels':>12}{'wall ratio':>12}")
    for name, row in table.items():
        ratio = table["keras_rcnn"]["wall"] / row["wall"] if "keras_rcnn" in table else float("nan")
        print(f"{name:28}{row['wall']:9.3f}{row['cpu']:9.3f}{row['memory_mb']:9.0f}{row['found']:12d}{ratio:12.2f}")
    print_unavailable(unavailable)
    answer = {"input": what, "machine": machine(arguments.threads), "sides": table, "unavailable": unavailable}
    write(arguments.json, answer)
    return 0 if table else 1
