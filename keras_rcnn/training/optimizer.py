"""The optimizer that a recipe asks for, with its learning rate."""

import keras

from keras_rcnn.training.recipe import RecipeError
from keras_rcnn.training.schedules import WarmupCosine, WarmupMultiStep


def build_optimizer(settings, epochs, steps):
    """AdamW, SGD with momentum, or Lamb.

    Args:
        settings: a recipe's `optimizer`, `learning_rate`, `momentum`, `weight_decay`, `clipnorm`, `warmup_steps`, and
            `drop_at`: the epochs after which the rate falls to a tenth; None for half a cosine down to 0.
        epochs: int, of the whole training.
        steps: int, of an epoch.

    Two more settings may be there: `accumulate`, the batches whose mean gradient makes one step (the schedule counts
    batches all the same), and `ema`, the momentum of an average of the weights, see `WithAverages`.

    Returns:
        A Keras optimizer.

    Raises:
        RecipeError: for an unknown optimizer.
    """
    warmup = min(settings.warmup_steps, epochs * steps // 2)
    if settings.drop_at is None:
        rate = WarmupCosine(settings.learning_rate, epochs * steps, warmup_steps=warmup)
    else:
        drops = [epoch * steps for epoch in settings.drop_at]
        rate = WarmupMultiStep(settings.learning_rate, drops, warmup_steps=warmup)
    common = {"weight_decay": settings.weight_decay, "clipnorm": settings.clipnorm}
    accumulate, ema = getattr(settings, "accumulate", None), getattr(settings, "ema", None)
    if accumulate is not None and accumulate < 1:
        raise RecipeError(f"accumulate = {accumulate}: the batches that make one step, at least 1, or None.")
    if ema is not None and not 0 < ema < 1:
        raise RecipeError(f"ema = {ema}: the momentum of the weights' average, between 0 and 1 (0.999), or None.")
    if accumulate is not None and accumulate > 1:
        common["gradient_accumulation_steps"] = accumulate
    if ema is not None:
        common |= {"use_ema": True, "ema_momentum": ema}
    kinds = {
        "adamw": lambda: keras.optimizers.AdamW(rate, **common),
        "lamb": lambda: keras.optimizers.Lamb(rate, **common),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=settings.momentum, **common),
    }
    if settings.optimizer not in kinds:
        raise RecipeError(f"optimizer = {settings.optimizer!r}: there are {', '.join(kinds)}.")
    return kinds[settings.optimizer]()


def unwrapped(optimizer):
    """The optimizer itself, within the loss scaling that mixed_float16 puts around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def slow_down(optimizer, variables, factor):
    """Lets some variables train with a share of the learning rate: a pretrained backbone below a new head.

    Args:
        optimizer: a Keras optimizer; it is changed in place. Its config and what is saved of it are not.
        variables: list of the model's `keras.Variable`s. They may be frozen.
        factor: float. AdamW's weight decay of them is not changed.
    """
    keys = {optimizer._var_key(one) for one in variables}
    whole = optimizer.update_step

    def update_step(gradient, variable, learning_rate):
        slow = optimizer._var_key(variable) in keys
        return whole(gradient, variable, learning_rate * factor if slow else learning_rate)

    optimizer.update_step = update_step
