"""Training that may be stopped at any time: all that is needed to resume it is in a folder.

    keeper        an epoch that saves, in parts where it can be divided; what fit uses
    every         when to save
    folder        the two newest checkpoints, written in the background; a damaged one is passed over
    lock          one training per folder
    storage       one checkpoint: Orbax arrays and a JSON log, with a checksum for each array
    history       the history as JSON
    fingerprint   what the training was made of, so that a change is noticed on resuming
    interrupts    SIGTERM and Ctrl-C save before they end the training
"""

from fnnet.train.checkpoint.keeper import Keeper, Stopped, nothing

__all__ = ["Keeper", "Stopped", "nothing"]
