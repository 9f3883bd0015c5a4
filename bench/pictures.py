"""python -m bench pictures: draws bench/pictures from the newest results. Each picture carries its data, with which a test compares it."""

import json
from pathlib import Path

from bench import readme

FOLDER = Path(__file__).parent / "pictures"
TITLES = {"ratios": "Time of a training step relative to plain JAX", "roofline": "Training steps under the machine's roofline",
          "scaling": "How time grows with sizes"}
# Okabe and Ito's color-blind-safe palette; the markers differ too.
COLORS, MARKERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"), "osD^vP*X<>dh"


def ratios(found):
    """{workload: {contender: time relative to plain JAX per step}}."""
    return {name: {contender: rounded(row["ratio"]) for contender, row in of.items() if contender != "fnnet step, autodiff"}
            for name, of in readme.grouped(found["steps"]).items()}


def roofline(found):
    """The peaks, and {workload: [operations per byte, GFLOP/s of fnnet's fastest step, of the fastest other]}."""
    peaks, work = found["machine peaks"]["peaks"], found["machine peaks"]["work"]
    points = {}
    for name, of in readme.grouped(found["steps"]).items():
        fastest = [min(row["ms"] for contender, row in of.items() if contender.startswith("fnnet") == ours) / 1e3 for ours in (True, False)]
        operations = work[name]["operations"]
        points[name[0]] = [rounded(operations / work[name]["bytes"]), *(rounded(operations / seconds / 1e9) for seconds in fastest)]
    return {"GFLOP/s": rounded(peaks["GFLOP/s"]["float32"]), "GB/s": rounded(peaks["GB/s"]), "points": points}


def scaling(found):
    """{case: sizes, ms of both forms, operations}."""
    return {row["case"]: {"what": row["what"], "sizes": row["sizes"], "operations": row["operations"],
                          **{form: [rounded(1e3 * t) for t in row[form]["seconds"]] for form in ("hand", "plain")}}
            for row in found["scaling"]}


DATA = {"ratios": (("steps",), ratios), "roofline": (("steps", "machine peaks"), roofline), "scaling": (("scaling",), scaling)}


def data(found):
    """{picture: its data} for the pictures whose parts the results have."""
    return {name: of(found) for name, (needs, of) in DATA.items() if set(needs) <= found.keys()}


def rounded(x):
    return float(f"{x:.4g}")


def draw(found=None, folder=FOLDER):
    """Draws all pictures, and returns their paths."""
    import matplotlib
    from matplotlib.figure import Figure
    folder, paths = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "fnnet", "svg.fonttype": "none", "font.size": 9}):
        for name, drawn in data(found or readme.newest()).items():
            figure = Figure(figsize=SIZES[name], layout="constrained")
            DRAW[name](figure, drawn)
            figure.suptitle(TITLES[name])
            paths.append(folder / f"{name}.svg")
            figure.savefig(paths[-1], metadata={"Date": None, "Creator": None, "Description": json.dumps(drawn, ensure_ascii=False)})
    return paths


def draw_ratios(figure, drawn):
    ax = figure.subplots()
    names = list(dict.fromkeys(contender for of in drawn.values() for contender in of if contender != "plain JAX step"))
    for i, contender in enumerate(names):
        at = [(of[contender], row) for row, of in enumerate(drawn.values()) if contender in of]
        ours = contender.startswith("fnnet")
        ax.plot(*zip(*at), MARKERS[i % len(MARKERS)], color=COLORS[0] if ours else COLORS[1:][i % 6], ms=9 if ours else 6, label=contender,
                mfc=None if ours else "none", zorder=3 if ours else 2)
    ax.axvline(1, color="gray", lw=1)
    ax.set_yticks(range(len(drawn)), [name.split(",")[0] for name in drawn])
    ax.set(xscale="log", xlabel="time : plain JAX, one call per step")
    ax.invert_yaxis()
    ax.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)


def draw_roofline(figure, drawn):
    ax, peak, bandwidth = figure.subplots(), drawn["GFLOP/s"], drawn["GB/s"]
    least, most = (f(x for x, *_ in drawn["points"].values()) for f in (min, max))
    knee = peak / bandwidth
    xs = sorted({min(least, knee) / 2, knee, 2 * max(most, knee)})
    ax.plot(xs, [min(peak, bandwidth * x) for x in xs], color="gray", label=f"{peak:.0f} GFLOP/s, {bandwidth:.0f} GB/s, measured")
    for (label, marker), column in zip((("fnnet", "o"), ("the fastest other", "s")), (1, 2)):
        at = [(of[0], of[column]) for of in drawn["points"].values()]
        ax.plot(*zip(*at), marker, color=COLORS[column - 1], mfc=None if column == 1 else "none", label=label)
    for name, (x, y, _) in drawn["points"].items():
        ax.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points")
    ax.set(xscale="log", yscale="log", xlabel="operations per byte that must be moved", ylabel="GFLOP/s")
    ax.legend(frameon=False)


def draw_scaling(figure, drawn):
    axes = figure.subplots(2, -(-len(drawn) // 2), squeeze=False).flat
    for ax, (name, of) in zip(axes, drawn.items()):
        for form, color, marker in (("hand", COLORS[0], "o"), ("plain", COLORS[1], "s")):
            ax.plot(of["sizes"], of[form], marker + "-", color=color, label={"hand": "fnnet", "plain": "plain JAX"}[form], ms=4)
        last = of["hand"][-1] / of["operations"][-1]
        ax.plot(of["sizes"], [last * n for n in of["operations"]], ":", color="gray", label="operations")
        ax.set(xscale="log", yscale="log", xlabel=name, ylabel="ms")
        ax.set_title(of["what"], fontsize=8)
        ax.set_xticks(of["sizes"], list(map(str, of["sizes"])))
        ax.minorticks_off()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


SIZES = {"ratios": (9, 4.5), "roofline": (6, 4), "scaling": (9, 5.5)}
DRAW = {"ratios": draw_ratios, "roofline": draw_roofline, "scaling": draw_scaling}
