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
    kinds = {
        "adamw": lambda: keras.optimizers.AdamW(rate, **common),
        "lamb": lambda: keras.optimizers.Lamb(rate, **common),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=settings.momentum, **common),
    }
    if settings.optimizer not in kinds:
        raise RecipeError(f"optimizer = {settings.optimizer!r}: there are {', '.join(kinds)}.")
    return kinds[settings.optimizer]()
