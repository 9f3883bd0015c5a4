"""python -m bench.readme [--front]: prints the tables of bench/README.md, or the three rows of the front page, from the newest results."""

import json
import sys

from bench.results import HERE
from fnnet.table import size, table

COLUMNS = ("fnnet epoch", "fnnet step", "plain JAX epoch", "optax", "stax", "flax linen", "flax nnx", "equinox", "haiku", "torch",
           "torch compiled")
FIRST = ("plain JAX step", "fnnet step", "fnnet epoch", "flax linen", "equinox", "torch", "torch compiled")


def newest():
    """The newest results that have all parts."""
    whole = [found for path in HERE.glob("*.json") if {"steps", "forms", "sweeps"} <= (found := json.loads(path.read_text())).keys()]
    return max(whole, key=lambda found: found["date"])


def markdown(found):
    """The page; parts that the results do not have are left out."""
    about = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if name not in ("jaxlib", "numpy"))
    texts = [f"{about['device']}, {about['cores']} cores, {found['date']}, Python {about['python']}, {versions}."]
    for part, write in PARTS.items():
        if part in found:
            texts += write(found)
    return "\n\n".join(texts)


def steps(found):
    from bench.steps import mean_gain, ours_to_best
    rows, best = found["steps"], ours_to_best(found["steps"])
    timed = {row["contender"] for row in rows}
    columns, calls = ([column for column in of if column in timed] for of in (COLUMNS, FIRST))

    def cell(of, column):
        last = f" ({of['torch, channels last']['ratio']:.2f})" if column == "torch" and "torch, channels last" in of else ""
        return f"{of[column]['ratio']:.2f}{last}" if column in of else ""
    cells, first = [], []
    for name, of in grouped(rows).items():
        other, gain = best[name]
        cells.append((name, f"{of['plain JAX step']['ms']:.3g}", *(cell(of, column) for column in columns), f"{gain:.2f} ({other})"))
        first.append((name[0], *(f"{of[column]['first s']:.2g}" if column in of else "" for column in calls)))
    return ["A training step: for plain JAX, ms per step with one jitted call each; for the others, their time relative to it (in "
            "parentheses: PyTorch with channels last). Last: the time of the fastest that is not fnnet relative to fnnet's, in the "
            f"geometric mean {mean_gain(rows):.2f}. An empty cell: no such network in that library, or not installed. PyTorch has as many "
            "threads as XLA.",
            table(("workload", "plain JAX step", *columns, "best other : fnnet"), cells, markdown=True), picture(found, "ratios"),
            "The first call, which traces and compiles, in seconds:", table(("workload", *calls), first, markdown=True)]


def machine(found):
    peaks, work = found["machine peaks"]["peaks"], found["machine peaks"]["work"]
    cells = []
    for name, of in grouped(found["steps"]).items():
        seconds = min(row["ms"] for contender, row in of.items() if contender.startswith("fnnet")) / 1e3
        cells.append((name, f"{work[name]['operations'] / 1e6:.3g}", f"{work[name]['operations'] / seconds / 1e9:.3g}",
                      *shares(work[name]["operations"], work[name]["bytes"], seconds, peaks)))
    return [f"The machine: products {peaks['GFLOP/s']['float32']:.0f} GFLOP/s in float32, memory {peaks['GB/s']:.1f} GB/s, both measured. "
            "fnnet's fastest step beside them; bytes are the parameters with the optimizer's state and the batch, read and written once.",
            table(("workload", "million operations", "GFLOP/s", "of the peak", "of the bandwidth"), cells, markdown=True),
            picture(found, "roofline")]


def shares(operations, moved, seconds, peaks):
    """Percentages of the peak of products and of the bandwidth."""
    from bench.machine import share
    return tuple(f"{100 * of:.0f} %" for of in share(operations, moved, seconds, peaks).values())


def forms(found):
    by_case = {}
    for row in found["forms"]:
        by_case.setdefault((row["rule"], row["sizes"]), {})[row["form"]] = row
    peaks = found.get("machine peaks", {}).get("peaks")

    def ratios(of, figure):
        """hand : plain (hand : best); empty if a form has 0."""
        parts = [of["hand"][figure] / of[form][figure] if of[form][figure] else None for form in ("plain", "best") if form in of]
        words = ["" if part is None else f"{part:.2g}" for part in parts]
        return words[0] + (f" ({words[1]})" if words[1:] and words[1] else "")

    def of_the_machine(row):
        return shares(row["products"], row["bytes"], row["seconds"], peaks) if peaks and "products" in row else ()
    cells = [(f"`{rule}` {sizes}", f"{of['hand']['ms']:.3g}", ratios(of, "seconds"), size(of["hand"]["saved"]), ratios(of, "saved"),
              size(of["hand"]["temp"]), ratios(of, "temp"), *of_the_machine(of["hand"])) for (rule, sizes), of in by_case.items()]
    header = ("rule", "ms", "time", "saved", "saved, ratio", "temporary", "temporary, ratio", "of the peak", "of the bandwidth")
    return ["Value and gradient of a rule at the sizes where it gains most: ms and bytes of the rule; ratios to the code one writes first "
            "and, in parentheses, to the best known alternative without a custom rule.",
            table(header[:len(cells[0])], cells, markdown=True)]


def sweeps(found):
    return ["; ".join(f"16 training runs of workload {row['workload'][0]} at once: {row['gain on plain JAX']:.1f} times as fast as "
                      "one after another in plain JAX" for row in found["sweeps"]) + "."]


def scaling(found):
    cells = []
    for row in found["scaling"]:
        hand, plain = row["exponents"]["hand"], row["exponents"]["plain"]
        cells.append((row["case"], row["what"], f"{row['sizes'][0]}–{row['sizes'][-1]}", f"{row['exponents']['operations']:.2f}",
                      *(f"{of[figure]:.2f}" for figure in ("seconds", "temp", "saved") for of in (hand, plain))))
    heads = (f"{figure}, {form}" for figure in ("time", "temporary", "saved") for form in ("fnnet", "plain JAX"))
    return ["How value and gradient grow: exponents fitted without the smallest size, beside that of the number of operations.",
            table(("grows", "of", "sizes", "operations", *heads), cells, markdown=True), picture(found, "scaling")]


def startup(found):
    of = found["startup"]
    cells = [(row["workload"], row["form"], f"{row['cold']:.2f}", f"{row['cached']:.2f}") for row in of["first step"]]
    digits = ", ".join(f"{name} {row['seconds']:.1f} s ({row['epochs']} epochs)" for name, row in of["digits"].items())
    return [f"`import fnnet` takes {of['import ratio']:.2f} of the time of `import jax` ({of['import']['jax']:.2f} s): ops, layers and the "
            "other parts are loaded when they are first used. "
            f"From the import to 97 % of held-out digits, compilation included: {digits}. The first step, in seconds:",
            table(("workload", "", "cold", "with the compilation cache"), cells, markdown=True)]


def devices(found):
    cells = []
    for layout, grows in dict.fromkeys((row["layout"], row["grows"]) for row in found["devices"]):
        rows = [row for row in found["devices"] if (row["layout"], row["grows"]) == (layout, grows)]
        for row in rows:
            one = row["ms"] / rows[0]["ms"]
            kinds = ", ".join(f"{times} {kind}" for kind, times in row["exchanges"].items())
            title = f"`{layout}`, " + ("batch grows" if grows == "work" else "same batch")
            cells.append((title, row["devices"], row["batch"], f"{row['ms']:.3g}", f"{one:.2f}", size(row["held"]),
                          size(row["exchanged"]), kinds))
    return ["A training step of 784-1024-1024-10 with Adam on 1, 2, 4 and 8 simulated devices, which share the cores of this "
            "machine: this shows what each device holds and what they exchange, not how fast eight real devices are. With perfect division "
            "and no cost of exchange the same batch takes the same time on any number of simulated devices, n times the batch n times as "
            "long.",
            table(("layout", "devices", "batch", "ms", ": one device", "held by each", "exchanged", "exchanges"), cells, markdown=True)]


# Parts of the results, in the order of the page.
PARTS = {"steps": steps, "machine peaks": machine, "forms": forms, "sweeps": sweeps, "scaling": scaling, "startup": startup,
         "devices": devices}


def picture(found, name):
    from bench import pictures
    return f"![{pictures.TITLES[name]}](pictures/{name}.svg)"


def grouped(rows):
    """{workload: {contender: row}}."""
    of = {}
    for row in rows:
        of.setdefault(row["workload"], {})[row["contender"]] = row
    return of


FRONT = {
    "causal attention, 2048 tokens, 8 heads of 64": ("forms", "attention", "temp"),
    "2×2 max pooling, 32 images of 32×32×64": ("forms", "max_pool", "seconds"),
    "convnet training step (28×28 images, batch 64), in a compiled epoch": ("steps", "d convnet", "ratio"),
}


def front(found):
    """Three rows with time or memory of fnnet beside plain JAX with autodiff, and a link to all measurements."""
    rows = []
    for what, (part, name, figure) in FRONT.items():
        ours, plain = ("fnnet epoch", "plain JAX step") if part == "steps" else ("hand", "plain")
        of = {row["contender" if part == "steps" else "form"]: row for row in found[part]
              if row["workload" if part == "steps" else "rule"].startswith(name)}
        say = (lambda row: f"{row['temp'] / 2**20:.3g} MiB") if figure == "temp" else (lambda row: f"{row['ms']:.3g} ms")
        gain = of[plain][figure] / of[ours][figure] if figure != "ratio" else 1 / of[ours]["ratio"]
        rows.append((what, "memory" if figure == "temp" else "time", say(of[ours]), say(of[plain]), f"{gain:.3g}×"))
    about = found["machine"]
    below = (f"{about['device']}, {about['cores']} cores, JAX {about['versions']['jax']}, float32. Elementwise operations and plain dense "
             "layers take equal time.\nOther libraries, and where a rule is slower: [all measurements](bench/README.md).")
    return table(("value and gradient", "", "fnnet", "plain JAX", "gain"), rows, markdown=True) + "\n\n" + below


def main(argv=()):
    print((front if "--front" in argv else markdown)(newest()))


if __name__ == "__main__":
    main(sys.argv[1:])
