"""python -m bench [WHAT] [--quick] [--targets] [--only NAME ...] [--cores N] [--out DIR]

rules    every rule: hand : autodiff, time, saved and temporary bytes; and the rules that gain most, at their target sizes (forms),
         compared with the code one writes first and the best known alternative without a custom rule
steps    whole training steps of the workloads a to h: plain JAX, fnnet per step and in a compiled epoch, other libraries
         if they are installed
machine  the peak of products and the memory bandwidth, which the other figures are read beside
scaling  how time and memory grow with width, depth, batch, length and vocabulary
startup  the import, the first step cold and with the compilation cache, and the time to 97 % on the digits
devices  how a training step is divided among 1, 2, 4 and 8 devices, simulated on a CPU
sweeps   sixteen training runs at once, compared with one after another
inside   the cost of measuring the layers of a network during training
page     what bench/README.md shows: machine, steps, forms, sweeps, scaling, startup and devices
all      everything above (the default)
ahead    bytes of scratch memory of the rules as planned by the compilers for a TPU and a GPU, if those are installed; nothing is run.
         Not included in all
device   on a GPU or a TPU, in --minutes: the audits, the peaks, the rules and training steps in bfloat16 and float32. With --small,
         small sizes, to try the command on any device. Not included in all
pictures draws bench/pictures from the newest results

The number of cores matters for the smallest workloads: calling a compiled step costs 30 to 50 µs of Python and dispatch, which
overlaps with the computation if there is a second core and precedes it otherwise.

On Linux CPUs, arrays above 32 MB are by default returned to the system and faulted in again at every step, which then takes most
of the time. So the bench restarts itself with MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ set; training with large arrays
benefits from the same two settings. Set them yourself, or pass --as-it-is, to measure without.
"""

import argparse
import os
import sys
import time

WHAT = ("rules", "steps", "machine", "scaling", "startup", "devices", "sweeps", "inside", "forms", "page", "all", "ahead", "device",
        "pictures")


def main():
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=WHAT, metavar="WHAT")
    parser.add_argument("--quick", action="store_true",
                        help="at most 5 minutes: steps of plain JAX and fnnet, fewer rounds, one example of each rule while time is left")
    parser.add_argument("--targets", action="store_true", help="only check the targets, PASS or FAIL")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these workloads (a, b, …) or rules")
    parser.add_argument("--out", metavar="DIR", help="folder for the results (default: bench/results; with --only, none are saved)")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--cores", type=int, metavar="N", help="use only N processor cores (Linux)")
    parser.add_argument("--as-it-is", action="store_true", help="do not change malloc settings")
    parser.add_argument("--minutes", type=float, default=8.0, help="for device: when to stop (default: 8)")
    parser.add_argument("--small", action="store_true", help="for device: small sizes, and no audits")
    args = parser.parse_args()
    if args.cores is not None:
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if not 1 <= args.cores <= len(allowed):
            sys.exit(f"--cores must be between 1 and the number of available cores, {len(allowed)}; got {args.cores}")
        os.sched_setaffinity(0, allowed[-args.cores:])
    if not args.as_it_is and sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        tuned = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
        os.execve(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]], {**os.environ, **tuned})
    if args.what == "ahead":        # before JAX starts: do not wait for a TPU, and keep the compilers quiet
        os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
                       "TPU_WORKER_HOSTNAMES": "localhost", "TPU_STDERR_LOG_LEVEL": "3", "TF_CPP_MIN_LOG_LEVEL": "3"}
    others = {"device": measure_device, "pictures": draw}
    try:
        sys.exit(others.get(args.what, measure)(args))
    except ValueError as error:
        sys.exit(str(error))


def measure(args):
    from bench import results  # JAX starts here, after malloc has been configured
    from bench.parts import IN_QUICK, MEANS, PARTS, PROMISED, SAVED, names

    chosen = MEANS[args.what]
    known = list(dict.fromkeys(name for part in chosen for name in names(part, args.targets)))
    if unknown := set(args.only or ()) - set(known):
        raise ValueError(f"--only must name some of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    about, start = results.machine(), time.perf_counter()
    args.began = start
    print(f"{about['device']}, {about['cores']} cores, JAX {about['versions']['jax']}, Python {about['python']}"
          + ("" if about["malloc tuned"] or about["platform"] != "cpu" else ", malloc not tuned"), flush=True)
    if args.targets:
        kept = True
        for part in chosen:
            for line in PROMISED[part](only=args.only) if part in PROMISED else ():
                print(line, flush=True)
                kept &= line.startswith("PASS")
        return 0 if kept else 1
    for part in chosen:
        if args.only and not set(args.only) & set(names(part)):
            continue
        if args.quick and args.what == "all" and not args.only and part not in IN_QUICK:
            continue
        if (found := PARTS[part](args)) and (args.out or not args.only):
            of = "ahead of time" if part == "ahead" else None
            path = results.save(args.out or results.HERE, of=of, **{SAVED.get(part, part): found})
            print(f"\n{path}   {time.perf_counter() - start:.0f} s", flush=True)
    return 0


def measure_device(args):
    from bench import device
    if not args.minutes > 0:
        raise ValueError(f"--minutes must be above 0; got {args.minutes}")
    return device.main(args.minutes, args.out, small=args.small)


def draw(args):
    from bench import pictures
    for path in pictures.draw():
        print(path)
    return 0


if __name__ == "__main__":
    main()
