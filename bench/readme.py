"""python -m bench.readme [--front]: prints the tables of bench/README.md, or the three rows of the front page, from the newest results."""

import json
import sys

from bench.results import HERE
from fnnet.table import size, table

COLUMNS = ("fnnet epoch", "fnnet step", "plain JAX epoch", "optax", "flax linen", "flax nnx", "equinox", "torch")


def newest():
    """The newest results that have all parts."""
    whole = [found for path in HERE.glob("*.json") if {"steps", "forms", "sweeps"} <= (found := json.loads(path.read_text())).keys()]
    return max(whole, key=lambda found: found["date"])


def markdown(found):
    about = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if name not in ("jaxlib", "numpy"))
    return "\n\n".join([
        f"{about['device']}, {about['cores']} cores, {found['date']}, Python {about['python']}, {versions}.",
        "A training step: for plain JAX, ms per step with one jitted call each; for the others, their time relative to it.",
        steps(found["steps"]),
        "Value and gradient of a rule at the sizes where it gains most: ms and bytes of the rule; ratios to the code one writes first and, "
        "in parentheses, to the best known alternative without a custom rule.", forms(found["forms"]),
        "; ".join(f"16 training runs of workload {row['workload'][0]} at once: {row['gain on plain JAX']:.1f} times as fast as "
                  "one after another in plain JAX" for row in found["sweeps"]) + "."])


def steps(rows):
    by_workload = {}
    for row in rows:
        by_workload.setdefault(row["workload"], {})[row["contender"]] = row
    cells = [(name, f"{of['plain JAX step']['ms']:.3g}", *(f"{of[column]['ratio']:.2f}" if column in of else "" for column in COLUMNS))
             for name, of in by_workload.items()]
    return table(("workload", "plain JAX step", *COLUMNS), cells, markdown=True)


def forms(rows):
    by_case = {}
    for row in rows:
        by_case.setdefault((row["rule"], row["sizes"]), {})[row["form"]] = row

    def ratios(of, figure):
        """hand : plain (hand : best); empty if a form has 0."""
        parts = [of["hand"][figure] / of[form][figure] if of[form][figure] else None for form in ("plain", "best") if form in of]
        words = ["" if part is None else f"{part:.2g}" for part in parts]
        return words[0] + (f" ({words[1]})" if words[1:] and words[1] else "")
    cells = [(f"`{rule}` {sizes}", f"{of['hand']['ms']:.3g}", ratios(of, "seconds"), size(of["hand"]["saved"]), ratios(of, "saved"),
              size(of["hand"]["temp"]), ratios(of, "temp")) for (rule, sizes), of in by_case.items()]
    return table(("rule", "ms", "time", "saved", "saved, ratio", "temporary", "temporary, ratio"), cells, markdown=True)


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
