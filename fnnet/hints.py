"""Suggestions for unknown names: other libraries' names for the same thing, and the closest spelling."""

import importlib
import sys
import warnings
from collections.abc import Iterable

ROOMS = ("ops", "layers", "optim", "train", "data", "store", "diagnostics", "verify", "measure")

# The names used here, and what PyTorch, Flax, Keras, Optax, Equinox and scikit-learn call the same thing, in lower case
# without underscores. Names that differ only in case and underscores (ReLU, Softmax, Adam) are found without this table.
ELSEWHERE = {
    "layers.Dense": "linear lazylinear densegeneral fullyconnected",
    "layers.Serial": "sequential mlp model modulelist",
    "layers.Layer": "module",
    "layers.Function": "lambda activation",
    "layers.Embedding": "embed embeddingbag",
    "layers.Conv": "conv1d conv2d conv3d convolution convlayer",
    "layers.ConvTranspose": "convtranspose1d convtranspose2d convtranspose3d conv1dtranspose conv2dtranspose "
                            "conv3dtranspose",
    "layers.DepthwiseConv": "depthwiseconv1d depthwiseconv2d",
    "layers.MaxPool": "maxpool1d maxpool2d maxpool3d maxpooling1d maxpooling2d maxpooling3d",
    "layers.AvgPool": "avgpool1d avgpool2d avgpool3d averagepooling1d averagepooling2d averagepooling3d meanpool",
    "layers.LpPool": "lppool1d lppool2d lppool3d",
    "layers.AdaptiveAvgPool": "adaptiveavgpool1d adaptiveavgpool2d adaptiveavgpool3d",
    "layers.AdaptiveMaxPool": "adaptivemaxpool1d adaptivemaxpool2d adaptivemaxpool3d",
    "layers.GlobalAvgPool": "globalaveragepooling1d globalaveragepooling2d globalaveragepooling3d",
    "layers.GlobalMaxPool": "globalmaxpooling1d globalmaxpooling2d globalmaxpooling3d",
    "layers.BatchNorm": "batchnorm1d batchnorm2d batchnorm3d batchnormalization syncbatchnorm",
    "layers.LayerNorm": "layernormalization",
    "layers.GroupNorm": "groupnormalization",
    "layers.InstanceNorm": "instancenorm1d instancenorm2d instancenorm3d instancenormalization",
    "layers.RMSNorm": "rmsnormalization",
    "layers.SpectralNorm": "spectralnormalization", "layers.WeightNorm": "weightnormalization",
    "layers.Dropout": "dropout1d dropout2d dropout3d spatialdropout2d",
    "layers.StochasticDepth": "droppath",
    "layers.MultiHeadAttention": "selfattention multiheaddotproductattention multiheadedattention",
    "layers.transformer_block": "transformerencoderlayer transformerlayer transformerencoderblock",
    "layers.MixtureOfExperts": "moe sparsemoe switchtransformer moelayer sparsemoeblock",
    "layers.LSTM": "lstmcell optimizedlstmcell",
    "layers.GRU": "grucell",
    "layers.RNN": "rnncell simplecell simplernn",
    "layers.Parallel": "concatenate concat",
    "layers.Residual": "skipconnection residualblock",
    "layers.initializers.glorot": "xavier xaviernormal xavieruniform glorotnormal glorotuniform",
    "layers.initializers.he": "kaiming kaimingnormal kaiminguniform henormal heuniform",
    "layers.initializers.lecun": "lecunnormal lecununiform",
    "layers.initializers.uniform": "randomuniform",
    "layers.initializers.truncated_normal": "truncnormal",
    "ops.max_pool_with_indices": "maxpool1dwithindices maxpool2dwithindices maxpool3dwithindices",
    "ops.max_unpool": "maxunpool1d maxunpool2d maxunpool3d",
    "ops.dense": "matmul addmm",
    "ops.grouped_product": "raggeddot groupedmm groupedmatmul gmm",
    "ops.attention": "scaleddotproductattention dotproductattention",
    "ops.sigmoid": "logistic",
    "ops.embedding": "lookup embeddinglookup",
    "ops.rope": "rotary rotaryembedding rotarypositionalembedding",
    "ops.squared_error": "mse mseloss meansquarederror l2loss",
    "ops.absolute_error": "mae maeloss l1loss meanabsoluteerror",
    "ops.huber": "smoothl1loss huberloss",
    "ops.log_cosh": "logcoshloss",
    "ops.softmax_cross_entropy": "crossentropy crossentropyloss softmaxcrossentropywithintegerlabels",
    "ops.softmax_cross_entropy, which takes logits": "categoricalcrossentropy sparsecategoricalcrossentropy",
    "ops.nll": "nllloss",
    "ops.binary_cross_entropy": "bce bceloss",
    "ops.binary_cross_entropy_with_logits": "bcewithlogits bcewithlogitsloss sigmoidbinarycrossentropy",
    "ops.multiclass_hinge": "multimarginloss svmloss",
    "ops.binary_hinge": "hinge hingeloss",
    "ops.multiclass_focal": "focalloss",
    "ops.binary_focal": "sigmoidfocalloss",
    "ops.ctc": "ctcloss",
    "ops.kl_divergence": "kldiv kldivloss",
    "ops.triplet": "tripletloss tripletmarginloss",
    "ops.cosine_distance, 1 − cosine similarity": "cosinesimilarity cosineembeddingloss",
    "ops.poisson_nll": "poissonnllloss",
    "ops.gaussian_nll": "gaussiannllloss",
    "ops.pinball": "quantileloss",
    "ops.margin_ranking": "marginrankingloss rankingloss",
    "ops.dice": "diceloss",
    "ops.multiclass_poly": "polyloss polylosscrossentropy",
    "ops.l2_normalize, or ops.lp_normalize for another p": "normalize unitnormalization",
    "ops.nt_xent": "ntxentloss infonce simclrloss",
    "ops.l2": "l2regularization l2penalty",
    "ops.l1": "l1regularization l1penalty",
    "optim.gradient_descent": "descent gd",
    "optim.Optimizer": "gradienttransformation",
    "optim.clip_by_global_norm": "clipgradnorm",
    "optim.clip_by_value": "clip clipgradvalue",
    "optim.weight_decay": "adddecayedweights",
    "optim.cosine": "cosinedecay cosinedecayschedule warmupcosinedecayschedule cosineannealinglr",
    "optim.exponential_decay": "exponentiallr",
    "optim.step_decay": "steplr",
    "optim.piecewise": "multisteplr piecewiseconstantschedule piecewiseinterpolateschedule piecewiseconstantdecay",
    "optim.linear": "linearlr linearschedule lineardecay",
    "optim.polynomial": "polynomiallr polynomialschedule polynomialdecay",
    "optim.join": "joinschedules sequentiallr",
    "optim.warmup": "linearwarmup warmupschedule",
    "optim.cosine_restarts": "cosineannealingwarmrestarts cosinedecayrestarts sgdrschedule",
    "optim.one_cycle": "onecyclelr cosineonecycleschedule linearonecycleschedule",
    "optim.reduce_on_plateau": "reducelronplateau",
    "optim.accumulate": "multisteps gradientaccumulation applyevery",
    "optim.moving_average": "ema averagedmodel exponentialmovingaverage polyakaveraging swa",
    "optim.partition": "multitransform paramgroups",
    "optim.freeze": "settozero",
    "optim.skip_nonfinite": "applyiffinite skipnotfinite",
    "optim.adaptive_clip": "adaptivegradclip agc",
    "optim.sam": "sharpnessawareminimization",
    "optim.schedule_free_adamw": "adamwschedulefree",
    "optim.schedule_free_sgd": "sgdschedulefree",
    "optim.with_hyperparams": "injecthyperparams",
    "optim.constant": "constantschedule constantlr",
    "optim.inverse_time_decay": "inversetimedecayschedule",
    "train.fit": "trainer trainloop",
    "train.make_step": "trainstep compile",
    "train.make_epoch": "trainepoch",
    "train.make_evaluate": "evaluator",
    "train.prefetch": "prefetchtodevice",
    "train.tensorboard": "summarywriter",
    "train.jsonl": "csvlogger",
    "train.range_test": "lrfinder",
    "train.sweep": "gridsearch gridsearchcv randomsearch randomizedsearchcv",
    "train.top_k": "topkaccuracy topkcategoricalaccuracy sparsetopkcategoricalaccuracy",
    "train.precision": "precisionscore",
    "train.recall": "recallscore",
    "train.f1": "f1score",
    "train.auc": "rocaucscore auroc",
    "train.r2": "r2score",
    "data.batches": "dataloader",
    "data.split": "traintestsplit",
    "data.standardize": "standardscaler",
    "data.read_mnist": "mnist loadmnist",
    "data.read_cifar10": "cifar10 loadcifar10",
    "data.read_csv": "loadcsv",
    "data.digits": "loaddigits",
    "diagnostics.confusion": "confusionmatrix",
    "gradient_check": "checkgrads gradcheck checkgradients",
    "rule": "customvjp customgradient custom",
    "save": "savemodel savecheckpoint savestate",
    "load": "loadmodel restore restorecheckpoint loadstate",
    "summary": "tabulate",
}
# What a setting is called here, and elsewhere, in lower case without underscores. One name may mean several settings:
# the first that a layer or function has is suggested.
SETTINGS = {
    "features": "units outfeatures outputsize filters outchannels hiddensize outputdim embeddingdim width hiddendim "
                "channels dim",
    "symbols": "numembeddings vocabsize inputdim",
    "kernel": "kernelsize kernelshape filtersize",
    "strides": "stride windowstrides",
    "window": "poolsize windowshape kernelsize kernel slidingwindow windowsize attentionwindow",
    "rate": "p droprate dropoutrate dropout lr learningrate drop prob dropprob",
    "bias": "usebias withbias center createoffset",
    "eps": "epsilon",
    "axis": "dim",
    "threshold": "lambd lambda theta",
    "alpha": "negativeslope loraalpha",
    "weights": "kernelinit kernelinitializer weightinit winit initializer embeddingsinitializer embeddinginit",
    "heads": "numheads nheads nhead",
    "compute_dtype": "dtype",
    "depth": "numlayers nlayers",
    "groups": "numgroups featuregroupcount group",
    "dilation": "kerneldilation dilationrate rhsdilation dilations rate",
    "decay": "weightdecay",
    "padding": "pad",
    "multiplier": "depthmultiplier channelmultiplier",
    "size": "outputsize headdim keydim keysize headsize",
    "p": "normtype",
    "scale": "usescale affine elementwiseaffine createscale",
    "biases": "biasinit biasinitializer binit",
    "recurrent": "recurrentinitializer recurrentkernelinit",
    "momentum": "decay decayrate",
    "kv_heads": "numkvheads numquerygroups numkeyvalueheads",
    "causal": "iscausal",
    "rotary": "ropebase ropetheta",
    "softcap": "logitssoftcap",
    "reverse": "gobackwards",
    "forget": "forgetbias unitforgetbias",
    "activation": "nonlinearity",
    "rank": "r",
    "steps": "npoweriterations nsteps",
    "start": "init negativeslope negativeslopeinit",
    "times": "depth numlayers nlayers repeats length",
    "keep": "remat checkpoint",
    "join": "mode merge",
    "shortcut": "skip downsample projection",
    "layer": "module body net",
    "body": "module layer net",
}


def give(module: str, renamed: dict[str, str] | None = None, lazy: dict[str, str] | None = None) -> None:
    """Makes a module suggest what to write when it is asked for a name that it does not have.

    renamed: old names that still work for one version, with a DeprecationWarning, and their new names. lazy: names to be imported
    when they are first used, and the submodules that have them; "" for a submodule itself.
    """
    face = sys.modules[module]

    def missing(name: str):
        if lazy and name in lazy:
            found = importlib.import_module(f"{module}.{lazy[name] or name}")
            if lazy[name]:
                found = getattr(found, name)
                setattr(face, name, found)
            return found
        if renamed and name in renamed:
            warnings.warn(f"{module}.{name} is now {module}.{renamed[name]}; the old name will be removed in the next version",
                          DeprecationWarning, stacklevel=2)
            return getattr(face, renamed[name])
        said = f"module {module!r} has no attribute {name!r}"
        if not name.startswith("_") and (hint := named(name, module)):
            said += f": {hint}"
        raise AttributeError(said, obj=face)            # without name=, or Python adds its own suggestion
    face.__getattr__ = missing
    if lazy:
        face.__dir__ = lambda: sorted({*vars(face), *lazy})


def named(name: str, module: str = "fnnet") -> str:
    """A suggestion for a name that this module does not have: "write layers.Dense", "did you mean …?", or ""."""
    here = module.partition(".")[2]
    rooms = {room: _names(room) for room in dict.fromkeys((here, *ROOMS, ""))}
    alike = [(room, known) for room, names in rooms.items() for known in names if plain(known) == plain(name)]
    target = translated(name)
    room, known = min(alike, key=lambda found: (found[0] != here, found[1] != name), default=("", ""))
    if known and not (room != here and target.startswith(f"{here}.")):      # layers.Linear is not optim.linear
        return f"write {_path(room, known)}"
    if target:
        return f"write {target if '.' in target else f'fnnet.{target}'}"
    close = closest(name, rooms[here])
    return f"did you mean {_path(here, close)}?" if close else ""


def translated(name: str) -> str:
    """The name used here for what another library calls `name`; "" if there is none."""
    return next((here for here, names in ELSEWHERE.items() if plain(name) in names.split()), "")


def setting(name: str, known: Iterable[str]) -> str:
    """A suggestion for an unknown setting: "did you mean features?", or the list of known settings."""
    known = list(known)
    if close := called(name, known) or closest(name, known):
        return f"did you mean {close}?"
    return f"it has {', '.join(known)}" if known else "it has none"


def called(name: str, known: Iterable[str]) -> str:
    """The known setting that another library calls `name`; "" if there is none."""
    known = set(known)
    return next((here for here, names in SETTINGS.items() if here in known and plain(name) in names.split()), "")


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is spelled most like this one; "" if none is close."""
    import difflib
    by_plain = {plain(word): word for word in known}
    found = difflib.get_close_matches(plain(name), by_plain, 3, 0.7)        # adma: adam rather than adamax
    return by_plain[min(found, key=lambda word: abs(len(word) - len(plain(name))))] if found else ""


def plain(name: str) -> str:
    """A name in lower case, without underscores."""
    return name.replace("_", "").lower()


def _names(room):
    return getattr(importlib.import_module(f"fnnet.{room}" if room else "fnnet"), "__all__", ())


def _path(room, name):
    return f"{room or 'fnnet'}.{name}"
