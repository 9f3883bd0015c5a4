"""train --distributed: each process trains in a child process, so that the command can tell what happened when JAX ends the child."""

import _thread
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import jax
import numpy as np

from fnnet import train

CONTROL = "FNNET_CONTROL"       # the variable with the file descriptor from which the child reads the signals that its parent received
LOST = 75                       # the exit status when another process was lost: starting again may help (EX_TEMPFAIL)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How errors of XLA begin, which JAX raises as JaxRuntimeError, or ValueError where an array is read, and what those about peers speak of.
OF_LOST_PEERS = re.compile(r"[A-Z_]{5,}: .*(Gloo|NCCL|RCCL|coordination|[Cc]onnection|[Bb]arrier|[Pp]eer)|(UNAVAILABLE|ABORTED): ",
                           re.DOTALL)


def options(sub):
    """The options of train for saving, and for several processes."""
    sub.add_argument("--checkpoint", metavar="FOLDER", help="save the training in this folder as it goes (with --distributed: "
                     "runs/DATA/checkpoint)")
    sub.add_argument("--resume", action="store_true", help="continue the training that is saved in the folder of --checkpoint, if any")
    sub.add_argument("--distributed", action="store_true", help="train with other processes that are started in the same way; under SLURM "
                     "and Open MPI this is all there is to write")
    sub.add_argument("--coordinator", metavar="HOST:PORT", help="the machine of process 0, and a free port there")
    sub.add_argument("--processes", type=int, metavar="N", help="how many processes there are")
    sub.add_argument("--process", type=int, metavar="I", help="the number of this process, from 0 to N - 1")
    sub.add_argument("--layout", choices=("data", "fsdp"), default="data", help="with --distributed: each device has all parameters, or, "
                     "fsdp, a part of them and of the optimizer's state (default: %(default)s)")


def check(args):
    """Errors about these options, before anything starts."""
    for name in ("coordinator", "processes", "process"):
        if getattr(args, name) is not None and not args.distributed:
            raise ValueError(f"--{name} is for training with other processes: write --distributed as well, or remove it")
    if args.layout != "data" and not args.distributed:
        raise ValueError(f"--layout {args.layout} is for training with other processes: write --distributed as well, or remove it")
    if args.resume and not checkpoint_of(args):
        raise ValueError("--resume needs the folder of the saved training: write --checkpoint FOLDER as well")
    if not args.resume and _holds(checkpoint_of(args)):
        raise ValueError(f"{checkpoint_of(args)} holds a training already: write --resume to continue it, delete that folder, or give "
                         "another one with --checkpoint")


def checkpoint_of(args):
    """The folder to save the training in; None if it is not to be saved."""
    return args.checkpoint or (str(Path(args.save or Path("runs", Path(args.data).stem)) / "checkpoint") if args.distributed else None)


def resumes(args):
    """Whether there is a training to continue."""
    return args.resume and _holds(checkpoint_of(args))


def _holds(folder):
    return folder is not None and Path(folder).is_dir() and any(path.name.isdigit() for path in Path(folder).iterdir())


def supervise(argv, args):
    """Runs this command in a child process, hands signals on to it, and says what happened when it ends. Returns the exit status."""
    if os.name != "posix":
        raise OSError("--distributed needs Linux or macOS")
    check(args)
    (read, write), received, children = os.pipe(), [], []

    def forward(number, frame):
        received.append(number)
        if len(received) == 1:
            os.write(write, bytes([number]))
        for child in children if len(received) > 1 else ():
            child.kill()
    handlers = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, forward)
    # The child inherits the mask. It gets each signal once, from here, whether the terminal or the scheduler signals it too or not.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        children += [subprocess.Popen([sys.executable, "-m", "fnnet", *argv], pass_fds=(read,), env={**os.environ, CONTROL: str(read)})]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read)
    status = children[0].wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.close(write)
    if len(received) > 1:
        return 128 + received[0]
    if status >= 0 and status != LOST:
        return status
    print(f"fnnet: {_ended(status)}. {_remedy(args)}", file=sys.stderr)
    return LOST


def _ended(status):
    if status in (LOST, -signal.SIGABRT):
        return ("the training ended because a process that took part in it was lost: it failed (then it says why), it was killed (memory, "
                "preemption), or its machine cannot be reached")
    said = "it may have needed more memory than there is" if status == -signal.SIGKILL else "an error inside JAX or a library"
    return f"the training process was ended by {signal.Signals(-status).name}: {said}"


def _remedy(args):
    if not _holds(checkpoint_of(args)):
        return "Nothing was saved yet: start the same command again in every process"
    return f"The training is saved in {checkpoint_of(args)}: start the same command again in every process, with --resume"


def in_child(run):
    """run() in the child process: its exit status. JAX's own farewell, which waits for all processes, is skipped after an error."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_obey, args=(int(os.environ.pop(CONTROL)),), daemon=True).start()
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)                                       # Gloo reports each connection on standard output
    try:
        status = run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    if status:
        sys.stderr.flush()
        os._exit(status)
    return 0


def watched(run, args):
    """run(args); the exit status LOST after an error that tells that another process was lost."""
    try:
        return run(args)
    except Exception as error:
        if not any(OF_LOST_PEERS.match(str(one)) for one in _with_context(error)):
            raise
        traceback.print_exc()
        return LOST


def _with_context(error):
    """An error and those in whose handling it was raised: while a backend starts, JAX puts words of its own before XLA's. An error
    raised from another one explains it, and ends the list."""
    while error is not None:
        yield error
        error = None if error.__suppress_context__ else error.__context__


def _obey(control):
    """Handles the signals that the parent received as if this process had; ends the process when the parent has ended."""
    while number := os.read(control, 1):
        _thread.interrupt_main(signal.Signals(number[0]))
    os._exit(LOST)


def started(args):
    """The mesh of the devices of all processes."""
    train.distributed.start(args.coordinator, args.processes, args.process)
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    if args.batch_size % mesh.size:
        raise ValueError(f"--batch-size must be a multiple of the number of devices, {mesh.size}; got {args.batch_size}")
    return mesh


def to_train_on(mesh, data, batch_size):
    """Whole batches of the examples, divided among the devices of all processes: the same on any number of devices."""
    n = len(data[1]) // batch_size * batch_size
    return train.sharding.shard(train.distributed.share(tuple(a[:n] for a in data)), mesh)


def to_evaluate(mesh, data):
    """(x, y, weights), all examples, and as many with weight 0 as divide them evenly among the devices."""
    n = len(data[1])
    rows = np.arange(n + -n % mesh.size)
    weights = (rows < n).astype(np.float32)
    return train.sharding.shard(train.distributed.share((*(a[rows % n] for a in data), weights)), mesh)
