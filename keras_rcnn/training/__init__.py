"""What `fit` needs around it: recipes, learning rate schedules, callbacks, checkpoints, several devices."""

from keras_rcnn.training.averages import WithAverages
from keras_rcnn.training.callbacks import BestAndLast, EarlyStopping, StopOnNaN, TimeLimit, WarnOnRise
from keras_rcnn.training.checkpoint import Checkpoint, CheckpointError
from keras_rcnn.training.cluster import ClusterError, WorkerLost
from keras_rcnn.training.distribute import fit, strategy
from keras_rcnn.training.history import HistoryCSV, plot_history, plot_violations
from keras_rcnn.training.pictures import Pictures
from keras_rcnn.training.plans.alternating import alternate
from keras_rcnn.training.recipe import load_recipe
from keras_rcnn.training.run import TrainingDiverged
from keras_rcnn.training.schedules import WarmupCosine, WarmupMultiStep
from keras_rcnn.training.settings import RecipeError, Settings
from keras_rcnn.training.silent import SilentUnits, silent_units
from keras_rcnn.training.svms import fit_box_regressors, fit_svms, stage_detections

__all__ = [
    "BestAndLast",
    "Checkpoint",
    "CheckpointError",
    "ClusterError",
    "EarlyStopping",
    "HistoryCSV",
    "Pictures",
    "RecipeError",
    "Settings",
    "SilentUnits",
    "StopOnNaN",
    "TimeLimit",
    "TrainingDiverged",
    "WarmupCosine",
    "WarmupMultiStep",
    "WarnOnRise",
    "WithAverages",
    "WorkerLost",
    "alternate",
    "fit",
    "fit_box_regressors",
    "fit_svms",
    "load_recipe",
    "plot_history",
    "plot_violations",
    "silent_units",
    "stage_detections",
    "strategy",
]
