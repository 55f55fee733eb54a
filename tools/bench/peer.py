"""torchvision's side of `infer` and `train`, in its several forms. Neither Keras nor this project is imported.

A form is `eager`, or some of these joined by `+`: `channels_last`, `bfloat16` or `float16` (torch.autocast), `compile`
(torch.compile of the parts whose shapes do not hang on what was found: backbone, RPN head, box head and mask head).
"""

import contextlib

import numpy as np

from bench import inputs
from bench.measure import fastest, resident_mb
from bench.weights import seeded_weights


def start(job):
    """Imports what this side measures with; returns the resident memory after that, in MB."""
    import torch
    import torchvision  # noqa: F401

    if job.threads:
        torch.set_num_threads(job.threads)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    return resident_mb()


def infer(job):
    """torchvision's own model on the decoded photos, and what follows its transform alone."""
    import torch

    model = detector(job).eval()
    images = inputs.photos(job.photo, job.batch, job.size)
    on, autocast = where(), Autocast(job)

    def moved(image):
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(on).float().div(255)
        return tensor[None].contiguous(memory_format=torch.channels_last)[0] if autocast.channels_last else tensor

    def on_cpu(found):
        if on == "cuda" and "masks" in found[0]:  # fewer bytes to fetch
            found = [{**one, "masks": one["masks"] > 0.5} for one in found]
        return [{key: value.cpu() for key, value in one.items()} for one in found]

    @torch.inference_mode()
    def detect():
        with autocast():
            scores = on_cpu(model([moved(image) for image in images]))[0]["scores"]
        return {"found": len(scores), "scores": [round(float(s), 4) for s in scores[:5]]}

    with torch.inference_mode():
        prepared, _ = model.transform([moved(image) for image in images])
        batch, sizes = prepared.tensors.cpu(), prepared.image_sizes

    @torch.inference_mode()
    def graph():
        with autocast():
            prepared.tensors = batch.to(on)
            if autocast.channels_last:
                prepared.tensors = prepared.tensors.contiguous(memory_format=torch.channels_last)
            features = model.backbone(prepared.tensors)
            proposals, _ = model.rpn(prepared, features)
            found, _ = model.roi_heads(features, proposals, sizes)
            return len(on_cpu(found))

    shape = [len(images), *batch.shape[2:], 3]
    return {"calls": {"photos": detect, "graph": graph}, "input": shape, "flops": lambda: counted_flops(job, graph)}


def train(job):
    """A step of SGD: the losses of torchvision's own model, backward, and the optimizer's step."""
    import torch

    height, width = job.size
    model = detector(job, min_size=min(job.size), max_size=max(job.size)).train()
    on, autocast = where(), Autocast(job)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=job.rate, momentum=0.9)
    scaler = torch.amp.GradScaler(on, enabled=autocast.dtype is torch.float16)
    images = [
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255)
        for image in inputs.photos(None, job.batch, job.size)
    ]
    targets = []
    for i in range(job.batch):
        boxes, labels = inputs.objects(height, width, seed=i)
        target = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels).long() + 1}
        if job.model.startswith("maskrcnn"):
            target["masks"] = torch.from_numpy(inputs.masks_in_photo(boxes, height, width))
        targets.append(target)

    def step():
        with autocast():
            losses = model(
                [image.to(on) for image in images], [{k: v.to(on) for k, v in one.items()} for one in targets]
            )
            loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return {"loss": round(float(loss), 4)}

    return {
        "calls": {"step": step},
        "input": [job.batch, height, width, 3],
        "flops": lambda: counted_flops(job, step),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def where():
    """The device that the models run on."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class Autocast:
    """What a form says about types and layout; called, the context that a model runs in."""

    def __init__(self, job):
        import torch

        parts = job.form.split("+")
        unknown = set(parts) - {"eager", "channels_last", "bfloat16", "float16", "compile"}
        if unknown:
            raise ValueError(f"torchvision has no form {sorted(unknown)}")
        self.channels_last, self.compile = "channels_last" in parts, "compile" in parts
        self.dtype = next((getattr(torch, part) for part in parts if part.endswith("16")), None)
        if self.dtype is torch.float16 and where() == "cpu":
            raise NotImplementedError("autocast to float16 is for CUDA")

    def __call__(self):
        import torch

        return torch.autocast(where(), self.dtype) if self.dtype else contextlib.nullcontext()


def detector(job, **settings):
    """torchvision's model with the weights of the job, or seeded ones, in the job's form."""
    import torch
    from torchvision.models import detection

    model = getattr(detection, job.model)(weights=None, weights_backbone=None, **settings)
    if not job.weights:
        state = {name: torch.from_numpy(value) for name, value in seeded_weights(job.model).items()}
    elif job.weights.endswith(".npz"):
        with np.load(job.weights) as file:
            state = {name: torch.from_numpy(file[name]) for name in file.files}
    elif job.weights.endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(job.weights)
    else:
        state = torch.load(job.weights, weights_only=True)
    state = {name: value for name, value in state.items() if "mask" in job.model or ".mask_" not in name}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{job.weights} lacks {missing[:3]} of {job.model} and has {unexpected[:3]} beyond it")
    if not job.model.endswith("v2"):  # as published: frozen, and epsilon 0 for ResNet
        freeze(model.backbone, 0.0 if "resnet" in job.model else 1e-5)
    form = Autocast(job)
    model = model.to(where())
    if form.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if form.compile:
        heads = model.roi_heads
        for owner, part in ((model, "backbone"), (model.rpn, "head"), (heads, "box_head"), (heads, "mask_head")):
            if getattr(owner, part, None) is not None:
                getattr(owner, part).compile()
    return model


def freeze(module, epsilon):
    """BatchNorm2d -> FrozenBatchNorm2d, as torchvision's constructors do when weights are given."""
    from torch import nn
    from torchvision.ops import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=epsilon)
            for part in ("weight", "bias", "running_mean", "running_var"):
                getattr(frozen, part).copy_(getattr(child, part).data)
            setattr(module, name, frozen)
        else:
            freeze(child, epsilon)


# === Work and devices ===


def counted_flops(job, call):
    """Operations of the convolutions and matrix products of one call, as torch counts them; None of compiled ones."""
    if "compile" in job.form:
        return None
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def matmul_rate(job):
    """Floating-point operations a second of a product of square matrices, at the form's precision: on CUDA float32 is
    what convolutions have by default, TF32."""
    import torch

    on, dtype = where(), Autocast(job).dtype or torch.float32
    side = 8192 if on == "cuda" else 2048
    matrix = torch.randn(side, side, device=on).to(dtype)
    allowed, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True

    def product():
        answer = matrix @ matrix
        if on == "cuda":
            torch.cuda.synchronize()
        return answer

    try:
        return 2 * side**3 / fastest(product)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def device(job):
    """`(name, peak memory in MB or None)` of what the model runs on."""
    import torch

    if where() == "cpu":
        return "cpu", None
    return torch.cuda.get_device_name(), round(torch.cuda.max_memory_allocated() / 1024**2)
