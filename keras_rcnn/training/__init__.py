"""What `fit` needs around it: recipes, learning rate schedules, callbacks, checkpoints, several devices."""

from keras_rcnn.training.averages import WithAverages
from keras_rcnn.training.callbacks import (
    BestAndLast,
    EarlyStopping,
    HistoryCSV,
    StopOnNaN,
    TimeLimit,
    WarnOnRise,
    plot_history,
)
from keras_rcnn.training.checkpoint import Checkpoint, CheckpointError
from keras_rcnn.training.cluster import ClusterError, WorkerLost
from keras_rcnn.training.distribute import fit, strategy
from keras_rcnn.training.pictures import Pictures
from keras_rcnn.training.recipe import RecipeError, load_recipe
from keras_rcnn.training.schedules import WarmupCosine, WarmupMultiStep

__all__ = [
    "BestAndLast",
    "Checkpoint",
    "CheckpointError",
    "ClusterError",
    "EarlyStopping",
    "HistoryCSV",
    "Pictures",
    "RecipeError",
    "StopOnNaN",
    "TimeLimit",
    "WarmupCosine",
    "WarmupMultiStep",
    "WarnOnRise",
    "WithAverages",
    "WorkerLost",
    "fit",
    "load_recipe",
    "plot_history",
    "strategy",
]
