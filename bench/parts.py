"""The parts of a measurement: each measures, prints its tables as it goes and returns what is saved."""

import math

from bench import ahead, devices, forms, inside, machine, rules, scaling, startup, steps, sweeps
from bench.workloads import WORKLOADS
from fnnet import ops
from fnnet.table import milliseconds, size, table

LONG = "def"            # workloads with tens of ms per step: excluded from a quick run unless requested
QUICK_SECONDS = 270     # after which a quick run begins no further rule
QUICK = {"rounds": 7, "least": 0.015, "check": 0, "only": {steps.BASE, "fnnet step", "fnnet epoch"}}


def measure_machine(args):
    found = machine.run()
    peaks = found["peaks"]
    products = ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in peaks["GFLOP/s"].items())
    print(f"\nproducts {products}; memory {peaks['GB/s']:.1f} GB/s", flush=True)
    return found


def measure_steps(args):
    found, absent = [], {}
    for workload in WORKLOADS:
        if workload.name not in args.only if args.only else args.quick and workload.name in LONG:
            continue
        try:
            rows, missing = steps.run(workload, **(QUICK if args.quick else {}))
        except AssertionError as error:         # losses that differ: the workload is not timed, but the others are
            print(f"\nNOT MEASURED: {error}", flush=True)
            continue
        found += rows
        absent |= {f"{workload.name}, {name}" if why.startswith("failed") else name: why for name, why in missing.items()}
        cells = [(row["contender"], f"{row['ms']:.3f}", f"{row['ratio']:.2f}", f"{row['first s']:.2f}") for row in rows]
        print(f"\n{workload.title}\n" + table(("", "ms per step", ": plain JAX step", "first call, s"), cells, markdown=args.markdown),
              flush=True)
    if found and not args.quick:
        print("\nlosses agree" + "".join(f"; {name}: {why}" for name, why in absent.items()), flush=True)
        print(f"best other contender : fnnet, geometric mean {steps.mean_gain(found):.2f}", flush=True)
    return found


def measure_sweeps(args):
    found = [sweeps.run(name, rounds=5 if args.quick else 9) for name in sweeps.TARGETS if name in (args.only or sweeps.TARGETS)]
    cells = [(row["workload"], *(f"{row[what]:.1f}" for what in sweeps.COLUMNS)) for row in found]
    print("\n" + table((f"{sweeps.RUNS} training runs at once", *sweeps.COLUMNS), cells, markdown=args.markdown), flush=True)
    return found


def measure_inside(args):
    found = [inside.run(name, rounds=7 if args.quick else 15) for name in inside.TARGETS if name in (args.only or inside.TARGETS)]
    cells = [(row["workload"], f"{row['ms']:.3f}", *(f"{row[form]:.3f}" for form in inside.FORMS)) for row in found]
    print("\n" + table(("an epoch with inside", "ms per step without", *inside.FORMS), cells, markdown=args.markdown), flush=True)
    return found


def measure_scaling(args):
    found = []
    for case in scaling.CASES:
        if args.only and case.name not in args.only:
            continue
        found.append(row := scaling.run(case))
        grows = row["exponents"]
        texts = [f"{form} " + ", ".join(f"{figure} n^{grows[form][figure]:.2f}" for figure in scaling.FIGURES) for form in scaling.FORMS]
        print(f"{case.name} {case.what}: operations n^{grows['operations']:.2f}; {'; '.join(texts)}", flush=True)
    return found


def measure_startup(args):
    found = startup.run()
    print(f"\nimport: {found['import ratio']:.2f} of JAX's {found['import']['jax']:.2f} s")
    for row in found["first step"]:
        print(f"first step of {row['workload']}, {row['form']}: {row['cold']:.2f} s, with the compilation cache {row['cached']:.2f} s")
    for library, of in found["digits"].items():
        print(f"97 % on the digits, import and compilation included: {library} {of['seconds']:.1f} s, {of['epochs']} epochs", flush=True)
    return found


def measure_devices(args):
    found = devices.run(rounds=3 if args.quick else 9)
    cells = [(row["layout"], row["grows"], row["devices"], row["batch"], milliseconds(row["ms"] / 1e3), size(row["held"]),
              size(row["exchanged"])) for row in found]
    header = ("layout", "what grows", "devices", "batch", "ms", "held by each", "exchanged")
    print("\n" + table(header, cells, markdown=args.markdown), flush=True)
    return found


def measure_rules(args):
    found, end = [], args.began + QUICK_SECONDS if args.quick and not args.only else math.inf
    for row in rules.run(quick=args.quick, only=args.only, end=end):
        found.append(row)
        print(".", end="", flush=True)

    def pair(row, what, write, scale=1.0):
        return f"{write(row[f'hand {what}'] * scale)} : {write(row[f'autodiff {what}'] * scale)}"
    cells = [(row["rule"], row["shapes"], pair(row, "ms", milliseconds, 1e-3), f"{row['gain']:.2f}", pair(row, "saved", size),
              pair(row, "temp", size), row["reason"]) for row in found]
    header = ("rule", "sizes", "ms hand : auto", "gain", "saved bytes", "temp bytes", "reason")
    if found:
        print("\n\n" + table(header, cells, markdown=args.markdown))
    if left := args.quick and not args.only and len(ops.rules()) - len(found):
        print(f"\nno time was left for {left} more rules: python -m bench rules", flush=True)
    return found


def measure_forms(args):
    found, cells = [], []
    for case in forms.chosen(args.only):
        found += (rows := forms.measured(case, 1.0 if args.quick else 2.5, exact=not args.quick))
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


PARTS = {"machine": measure_machine, "steps": measure_steps, "forms": measure_forms, "sweeps": measure_sweeps, "scaling": measure_scaling,
         "startup": measure_startup, "devices": measure_devices, "inside": measure_inside, "rules": measure_rules, "ahead": measure_ahead}
SAVED = {"machine": "machine peaks"}           # the names of parts in the results, where another: "machine" describes it
# What each word of the command line measures. The page is bench/README.md.
PAGE = ("machine", "steps", "forms", "sweeps", "scaling", "startup", "devices")
MEANS = {**{part: (part,) for part in PARTS}, "rules": ("rules", "forms"), "page": PAGE,
         "all": tuple(part for part in PARTS if part != "ahead")}
IN_QUICK = ("machine", "steps", "rules")        # of a quick run of all
PROMISED = {"steps": steps.targets, "sweeps": sweeps.targets, "inside": inside.targets, "forms": forms.targets}


def names(part, targets=False):
    """What --only may name."""
    named = {"steps": [w.name for w in WORKLOADS], "sweeps": list(sweeps.TARGETS), "inside": list(inside.TARGETS),
             "scaling": [case.name for case in scaling.CASES], "forms": [case.rule for case in forms.CASES]}
    return named.get(part, [rule.__name__ for rule in ops.rules()] if part in ("rules", "ahead") and not targets else [])
