"""Training that can be stopped at any time: a folder holds everything needed to resume it.

    keeper        an epoch that saves, in parts where it can be divided; used by fit
    every         when to save
    folder        the two newest checkpoints, written in the background; damaged ones are skipped
    lock          one training per folder
    storage       one checkpoint: Orbax arrays and a JSON log, with a checksum for each array
    history       the history as JSON
    fingerprint   what the training consists of, so that changes are detected on resuming
    interrupts    SIGTERM and Ctrl-C save before they end the training
"""

from fnnet.train.checkpoint.keeper import Keeper, Stopped, nothing

__all__ = ["Keeper", "Stopped", "nothing"]
