"""Former names of functions, which go on working for one release."""

import functools
import sys
import types
import warnings
from typing import Any


def keep_former_name(module_name: str, former: str, present: str) -> None:
    """Lets the former name of a function work, with a DeprecationWarning, where it is also that of its module.

    `keras_rcnn.presets()` and `from keras_rcnn.presets import presets` are what remains of such a name.

    Args:
        module_name: the module's `__name__`.
        former: the function's former name, in the module.
        present: the function's name.
    """
    module = sys.modules[module_name]
    function = getattr(module, present)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"keras_rcnn.{former}() is now keras_rcnn.{present}(); the former name goes with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return function(*args, **kwargs)

    setattr(module, former, call)
    module.__class__ = type("CallableModule", (types.ModuleType,), {"__call__": staticmethod(call)})
