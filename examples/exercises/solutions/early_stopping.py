"""Exercise: early stopping.

Train for an epoch, compute the validation loss, and remember the parameters where it was lowest. Stop as soon as `patience` epochs in a
row have not brought it below the lowest so far, or after `epochs` epochs.

Given       train_epoch(params) → the parameters after one more epoch
            valid_loss(params) → a number
            params: the initial parameters, which are not a candidate; those after the first epoch are
Return      the parameters with the lowest validation loss, and the number of epochs trained

Grade it:   python -m fnnet grade early_stopping.py
"""


def early_stopping(train_epoch, valid_loss, params, patience, epochs):
    best, lowest, waited, trained = params, float("inf"), 0, 0
    while trained < epochs and waited < patience:
        params = train_epoch(params)
        trained += 1
        loss = valid_loss(params)
        if loss < lowest:
            best, lowest, waited = params, loss, 0
        else:
            waited += 1
    return best, trained
