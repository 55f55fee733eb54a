"""The optimizer that a recipe asks for, with its learning rate."""

import keras

from keras_rcnn.training.schedules import WarmupCosine, WarmupMultiStep
from keras_rcnn.training.settings import Settings


def build_rate(settings: Settings, epochs: int, steps: int) -> WarmupCosine | WarmupMultiStep:
    """The learning rate of each step.

    Args:
        settings: `Settings`: its schedule. While gradients accumulate, the schedule counts batches all the same.
        epochs: int, of the whole training.
        steps: int, of an epoch.
    """
    warmup = min(settings.warmup_steps, epochs * steps // 2)
    if settings.lr_drop_epochs is None:
        return WarmupCosine(settings.learning_rate, epochs * steps, warmup_steps=warmup)
    drops = [epoch * steps for epoch in settings.lr_drop_epochs]
    return WarmupMultiStep(settings.learning_rate, drops, settings.lr_drop_factor, warmup_steps=warmup)


def build_optimizer(
    settings: Settings, rate: float | keras.optimizers.schedules.LearningRateSchedule
) -> keras.optimizers.Optimizer:
    """AdamW, SGD with momentum, or Lamb, at a learning rate."""
    options = {"weight_decay": settings.weight_decay, "clipnorm": settings.clipnorm}
    if (settings.gradient_accumulation_steps or 1) > 1:
        options["gradient_accumulation_steps"] = settings.gradient_accumulation_steps
    if settings.ema_momentum is not None:
        options |= {"use_ema": True, "ema_momentum": settings.ema_momentum}
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=settings.momentum, **options)
    return {"adamw": keras.optimizers.AdamW, "lamb": keras.optimizers.Lamb}[settings.optimizer](rate, **options)
