"""The ways to train a detector, a file each. A new file here is a new plan; it has these functions:

- `suits(settings, detector)`: whether it is the plan for these settings and this class of detectors. One alone may be,
  or none: then `joint` is, which is not asked.
- `check(settings, detector)`: a list of what the settings must not be, in words.
- `train(run, model)`: from a new model to a preset in `run.out`.
"""

import importlib
import pkgutil
from types import ModuleType

from keras_rcnn.models import Detector
from keras_rcnn.training.settings import Settings


def plan_for(settings: Settings, detector: type[Detector]) -> ModuleType:
    """The module of the plan.

    Args:
        settings: `Settings`.
        detector: the class of the detector that they describe.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "joint")
    plans = [importlib.import_module(f"{__name__}.{name}") for name in names]
    suited = [plan for plan in plans if plan.suits(settings, detector)]
    if len(suited) > 1:
        raise ValueError(f"several plans suit: {', '.join(plan.__name__ for plan in suited)}")
    return suited[0] if suited else importlib.import_module(f"{__name__}.joint")
