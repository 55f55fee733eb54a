"""What goes wrong with weights files."""


class ConversionError(ValueError):
    """Weights that are not those of the model asked for."""


class WeightsFileError(ConversionError):
    """A file that holds no readable weights: truncated, malformed, too large, or something else altogether."""


class UnsafeWeightsError(WeightsFileError):
    """A file that asks to run code on loading. It was not run."""
