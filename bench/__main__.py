"""python -m bench [rules|steps|sweeps|inside|all|ahead] [--quick] [--targets] [--only NAME ...] [--cores N] [--out DIR]

rules    every rule: hand : autodiff, time, saved and temporary bytes; and the rules that gain most, at their target sizes, compared
         with the code one writes first and the best known alternative without a custom rule
steps    whole training steps of the workloads a to h: plain JAX, fnnet per step and in a compiled epoch, other libraries
         if they are installed
sweeps   sixteen training runs at once, compared with one after another
inside   the cost of measuring the layers of a network during training
ahead    bytes of scratch memory of the rules as planned by the compilers for a TPU and a GPU, if those are installed; nothing is run.
         Not included in all

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

LONG = "def"         # workloads with tens of ms per step: excluded from a quick run unless requested
LEFT_OUT = ("sweeps", "inside", "forms")        # excluded from a quick run of all unless requested


def main():
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=("rules", "steps", "sweeps", "inside", "all", "ahead"))
    parser.add_argument("--quick", action="store_true",
                        help="only steps and rules, fewer rounds, one example per rule: under 5 minutes on 2 cores")
    parser.add_argument("--targets", action="store_true", help="only check the targets, PASS or FAIL")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these workloads (a, b, …) or rules")
    parser.add_argument("--out", metavar="DIR", help="folder for the results (default: bench/results; with --only, none are saved)")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--cores", type=int, metavar="N", help="use only N processor cores (Linux)")
    parser.add_argument("--as-it-is", action="store_true", help="do not change malloc settings")
    args = parser.parse_args()
    if args.cores is not None:
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        if not 1 <= args.cores <= len(allowed):
            sys.exit(f"--cores must be between 1 and the number of available cores, {len(allowed)}; got {args.cores}")
        os.sched_setaffinity(0, allowed[-args.cores:])
    if not args.as_it_is and sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        tuned = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
        os.execve(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]], {**os.environ, **tuned})
    if args.what == "ahead":        # before JAX starts: do not wait for a TPU, and keep the compilers quiet
        os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
                       "TPU_WORKER_HOSTNAMES": "localhost", "TPU_STDERR_LOG_LEVEL": "3", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        sys.exit(measure(args))
    except ValueError as error:
        sys.exit(str(error))


def measure(args):
    from bench import forms, inside, results, steps, sweeps  # JAX starts here, after malloc has been configured
    from bench.workloads import WORKLOADS
    from fnnet import ops

    names = {"steps": [w.name for w in WORKLOADS], "sweeps": list(sweeps.TARGETS), "inside": list(inside.TARGETS),
             "rules": [rule.__name__ for rule in ops.rules()]}
    promised = {"steps": steps.targets, "sweeps": sweeps.targets, "inside": inside.targets, "rules": forms.targets}
    if args.targets:
        names["rules"] = [case.rule for case in forms.CASES]
    names["ahead"] = names["rules"]
    known = list(dict.fromkeys(name for part in names if args.what in (part, "all") for name in names[part]))
    if unknown := set(args.only or ()) - set(known):
        raise ValueError(f"--only must name some of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    about, start = results.machine(), time.perf_counter()
    print(f"{about['device']}, {about['cores']} cores, JAX {about['versions']['jax']}, Python {about['python']}"
          + ("" if about["malloc tuned"] or about["platform"] != "cpu" else ", malloc not tuned"), flush=True)
    if args.targets:
        kept = True
        for part, targets in promised.items():
            for line in targets(only=args.only) if args.what in (part, "all") else ():
                print(line, flush=True)
                kept &= line.startswith("PASS")
        return 0 if kept else 1
    for part, measured in (("steps", measure_steps), ("sweeps", measure_sweeps), ("inside", measure_inside), ("rules", measure_rules),
                           ("forms", measure_forms), ("ahead", measure_ahead)):
        wanted = args.what in ("rules" if part == "forms" else part, "all" if part != "ahead" else part)
        wanted &= not (args.quick and args.what == "all" and not args.only and part in LEFT_OUT)
        if wanted and (found := measured(args)) and (args.out or not args.only):
            path = results.save(args.out or results.HERE, of="ahead of time" if part == "ahead" else None, **{part: found})
            print(f"\n{path}   {time.perf_counter() - start:.0f} s", flush=True)
    return 0


def measure_steps(args):
    from bench import steps
    from bench.workloads import WORKLOADS
    from fnnet.table import table

    found, missing = [], {}
    for workload in WORKLOADS:
        if workload.name not in args.only if args.only else args.quick and workload.name in LONG:
            continue
        rows, missing = steps.run(workload, **({"rounds": 7, "least": 0.015, "check": 0} if args.quick else {}))
        found += rows
        cells = [(row["contender"], f"{row['ms']:.3f}", f"{row['ratio']:.2f}", f"{row['first s']:.2f}") for row in rows]
        print(f"\n{workload.title}\n" + table(("", "ms per step", ": plain JAX step", "first call, s"), cells, markdown=args.markdown),
              flush=True)
    if found:
        print("\nlosses " + ("not compared" if args.quick else "agree") + (f"; not installed: {', '.join(missing)}" if missing else ""),
              flush=True)
    return found


def measure_sweeps(args):
    from bench import sweeps
    from fnnet.table import table

    found = [sweeps.run(name, rounds=5 if args.quick else 9) for name in sweeps.TARGETS if name in (args.only or sweeps.TARGETS)]
    cells = [(row["workload"], *(f"{row[what]:.1f}" for what in sweeps.COLUMNS)) for row in found]
    print("\n" + table((f"{sweeps.RUNS} training runs at once", *sweeps.COLUMNS), cells, markdown=args.markdown), flush=True)
    return found


def measure_inside(args):
    from bench import inside
    from fnnet.table import table

    found = [inside.run(name, rounds=7 if args.quick else 15) for name in inside.TARGETS if name in (args.only or inside.TARGETS)]
    cells = [(row["workload"], f"{row['ms']:.3f}", *(f"{row[form]:.3f}" for form in inside.FORMS)) for row in found]
    print("\n" + table(("an epoch with inside", "ms per step without", *inside.FORMS), cells, markdown=args.markdown), flush=True)
    return found


def measure_rules(args):
    from bench import rules
    from fnnet.table import milliseconds, size, table

    found = []
    for row in rules.run(quick=args.quick, only=args.only):
        found.append(row)
        print(".", end="", flush=True)

    def pair(row, what, write, scale=1.0):
        return f"{write(row[f'hand {what}'] * scale)} : {write(row[f'autodiff {what}'] * scale)}"
    cells = [(row["rule"], row["shapes"], pair(row, "ms", milliseconds, 1e-3), f"{row['gain']:.2f}", pair(row, "saved", size),
              pair(row, "temp", size), row["reason"]) for row in found]
    header = ("rule", "sizes", "ms hand : auto", "gain", "saved bytes", "temp bytes", "reason")
    if found:
        print("\n\n" + table(header, cells, markdown=args.markdown))
    return found


def measure_forms(args):
    from bench import forms
    from fnnet.table import milliseconds, size, table

    found, cells = [], []
    for case in forms.chosen(args.only):
        found += (rows := forms.measured(case, 1.0 if args.quick else 4.0, exact=not args.quick))
        heads = [(case.rule, case.sizes)] + [("", "")] * (len(rows) - 1)
        cells += [(*head, row["form"], milliseconds(row["seconds"]), f"{row['seconds'] / rows[0]['seconds']:.2f}", size(row["saved"]),
                   size(row["temp"]), "" if row["error"] is None else f"{row['error']:.0e}",
                   case.buys if row["seconds"] < 0.95 * rows[0]["seconds"] else "") for head, row in zip(heads, rows, strict=True)]
    if found:
        header = ("rule", "sizes", "form", "ms", ": hand", "saved bytes", "temp bytes", "error", "hand is slower but gains")
        gains = forms.gains(found)
        print("\n\n" + table(header, cells, markdown=args.markdown))
        print(f"\nbest plain form : hand, geometric means: time {gains['seconds']:.2f}, saved bytes {gains['saved']:.1f}", flush=True)
    return found


def measure_ahead(args):
    from bench import ahead
    from fnnet.table import size, table

    found, missing = ahead.devices()
    if missing:
        print(f"not installed: the compilers for {' and '.join(missing)}. {ahead.REMEDY}", flush=True)
    rows = []
    for row in ahead.run(only=args.only) if found else ():
        rows.append(row)
        print(".", end="", flush=True)
    cells = [(row["device"], row["rule"], row["sizes"], row["form"], size(row["temp"]) if "temp" in row else "rejected",
              str(row.get("instructions", row.get("refused")))) for row in rows]
    header = ("device", "rule", "sizes", "form", "temp bytes", "instructions")
    if rows:
        print(f"\n\n{ahead.LABEL}\n" + table(header, cells, markdown=args.markdown))
    return rows and {"what": ahead.LABEL, "compilers": ahead.versions(), "rows": rows}


if __name__ == "__main__":
    main()
