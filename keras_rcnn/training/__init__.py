"""What `fit` needs around it: recipes, learning rate schedules and callbacks."""

from keras_rcnn.training.callbacks import BestAndLast, HistoryCSV, StopOnNaN, TimeLimit, plot_history
from keras_rcnn.training.recipe import RecipeError, load_recipe
from keras_rcnn.training.schedules import WarmupCosine, WarmupMultiStep

__all__ = [
    "BestAndLast",
    "HistoryCSV",
    "RecipeError",
    "StopOnNaN",
    "TimeLimit",
    "WarmupCosine",
    "WarmupMultiStep",
    "load_recipe",
    "plot_history",
]
