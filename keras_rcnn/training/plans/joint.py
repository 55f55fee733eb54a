"""All of a detector at once: Fast R-CNN's training in one stage (section 2.3), and that of its successors."""


def check(settings, detector):
    """Problems in words, empty if there are none."""
    if settings.patience and not (settings.val or settings.val_fraction):
        return [f"patience = {settings.patience} counts evaluations, and there is no val, nor val_fraction."]
    return []


def train(run, model):
    """Fits the detector; the preset is the best of the epochs that were evaluated."""
    run.find_proposals(model)
    run.fit(model, run.settings.epochs, kept=run.keep(model))
    if run.chief:
        run.publish()
