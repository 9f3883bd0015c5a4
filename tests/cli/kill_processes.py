"""Trainings of two processes, one of which is killed again and again: python kill_processes.py KILLS FOLDER [SEED]. Prints what happened.

Each attempt runs the command in two processes; at a random moment, half of the time after it has saved something, the command or the
child in which it trains is killed in one of them.
The other must end with its message within SECONDS; then both are started again with --resume, until the training ends. Commands and
their children are forked processes, so that everything is imported only once, and compile into a cache; rules are not audited here.
"""

import atexit
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
import warnings
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from fnnet import cli
from fnnet.cli import launch, training

SECONDS = 60            # for the message of the command
PATIENCE = 600          # in which anything here ends
RESUMES = 5             # after which a training may end
TRAIN = ["train", "table.csv", "--target", "label", "--net", "linear", "--batch-size", "8", "--epochs", "40", "--quiet", "--resume",
         "--distributed", "--processes", "2"]
MESSAGE = "start the same command again in every process"


class Forked:
    """What subprocess.Popen is to launch: the child that trains, as a fork of the command."""

    def __init__(self, argv, pass_fds, env):
        self.pid = forked(argv[3:], keep=pass_fds, env=env)

    def wait(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)


def forked(argv, keep=(), env=(), folder=".", said=None):
    """The command in a fork of this process: its number."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.chdir(folder)
        os.environ.update(env)
        for number in {*map(int, os.listdir("/proc/self/fd"))} - {0, 1, 2, *keep}:
            with contextlib.suppress(OSError):          # the other ends of pipes; what listed them is closed by now
                os.close(number)
        if said is not None:
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
        status = cli.main(argv)
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def make_table(folder):
    """table.csv in a new folder: 160 rows, of which 112 are for training."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 3))
    words = np.where(x[:, 0] + x[:, 1] + rng.normal(size=160) > 0, "yes", "no")
    rows = [",".join([*map(str, row), word]) for row, word in zip(x, words)]
    (folder / "table.csv").write_text("\n".join(["a,b,c,label", *rows]) + "\n")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def child_of(pid):
    """The process that trains; the command itself while it has not started it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def ended(pid):
    """The exit status of a process; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def attempt(folder, kill=None):
    """Both processes until they end: their exit statuses, the victim's last; what they said; the seconds after the kill, or None; those
    from the first save to the end.

    kill is (seconds, whether after the first save, process, whether its child); None kills none of them.
    """
    port, begun, statuses, took = free_port(), time.monotonic(), {}, None
    names = [str(folder.absolute() / f"said{i}") for i in (0, 1)]
    pids = [forked([*TRAIN, "--coordinator", f"127.0.0.1:{port}", "--process", str(i)], folder=folder, said=names[i]) for i in (0, 1)]
    seconds, late, victim, child = kill or (float("inf"), False, 1, False)
    killed = saved = None
    before = checkpoints(folder)
    while len(statuses) < 2:
        time.sleep(0.02)
        now = time.monotonic()
        for i in {0, 1} - {*statuses}:
            if (status := ended(pids[i])) is not None:
                statuses[i] = status
                if killed is not None and i != victim:
                    took = now - killed
        if saved is None and checkpoints(folder) - before:
            saved = now
        since = saved if late else begun
        if killed is None and not statuses and since is not None and now - since > seconds:
            os.kill(child_of(pids[victim]) if child else pids[victim], signal.SIGKILL)
            killed = now
        if now - begun > PATIENCE:
            for i in {0, 1} - {*statuses}:
                os.kill(child_of(pids[i]), signal.SIGABRT)
                os.kill(pids[i], signal.SIGKILL)
            raise SystemExit(f"{kill}: {statuses} after {PATIENCE} seconds:\n" + "\n---\n".join(Path(name).read_text() for name in names))
    order = (1 - victim, victim)
    return [statuses[i] for i in order], [Path(names[i]).read_text() for i in order], took, time.monotonic() - (saved or now)


def checkpoints(folder):
    return {path.name for path in (folder / "runs/table/checkpoint").glob("*") if path.name.isdigit()}


def arrays(folder):
    """The bytes of each array of the model that was saved; the order of the names in the file's header is not always the same."""
    from safetensors.numpy import load_file
    return {name: a.tobytes() for name, a in load_file(folder / "runs/table/model.safetensors").items()}


def main(kills, folder, seed=0):
    import orbax.checkpoint  # noqa: F401     (once, for all forks)
    launch.subprocess.Popen = Forked
    training._audited = lambda rules: []
    folder, rng = Path(folder).absolute(), random.Random(seed)
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    whole, longest, late = {}, 0.0, 0.0
    for here in (*([] if (folder / "cache").exists() else [folder / "compiling"]), folder / "unbroken"):
        make_table(here)
        begun = time.monotonic()
        statuses, said, _, late = attempt(here)
        if statuses != [0, 0]:
            raise SystemExit(f"the unbroken training ended with {statuses}:\n{said[0]}\n---\n{said[1]}")
        whole, longest = arrays(here), time.monotonic() - begun
        print(f"{here.name}: {longest:.1f} s, {late:.1f} s of them after the first save", file=sys.stderr, flush=True)
    met = dict.fromkeys(("kills", "trainings", "bit-identical", "after a save", "of the child", "of process 0"), 0)
    waits = []
    while met["kills"] < kills:
        here, resumed, took = folder / f"training{met['trainings']}", 0, 0.0
        make_table(here)
        while took is not None:
            after = rng.random() < 0.5
            kill = (rng.uniform(0, late / 2 if after else longest), after, rng.randrange(2), rng.random() < 0.5)
            statuses, said, took, _ = attempt(here, kill if met["kills"] < kills and resumed < RESUMES else None)
            if statuses[0] == 0 and (took is None or statuses[1] in (0, 75, -signal.SIGKILL)):      # the other needed it no more
                break
            saved = len(checkpoints(here))
            right = took is not None and took <= SECONDS and statuses[0] == 75 and MESSAGE in said[0].splitlines()[-1]
            right &= not kill[-1] or statuses[1] in (75, -signal.SIGKILL)           # the latter before it had a child
            print(f"kill {met['kills'] + 1}: {kill}, {took} s, {statuses}, {saved} saved", file=sys.stderr, flush=True)
            if not right:
                raise SystemExit(f"{kill}: after {took} s, with {statuses}:\n{said[0]}\n---\n{said[1]}")
            waits.append(took)
            resumed += saved > 0
            for name, counts in zip(met, (True, False, False, saved > 0, kill[-1], kill[-2] == 0)):
                met[name] += counts
        met["trainings"] += 1
        met["bit-identical"] += arrays(here) == whole
    print(json.dumps(met | {"longest wait": round(max(waits), 1), "mean wait": round(sum(waits) / len(waits), 1)}))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*fork")
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
