"""Where figures are stored: one JSON file per machine and day, named by its processor or accelerator."""

import datetime
import json
import os
import platform
import re
from importlib import metadata
from pathlib import Path

import jax

HERE = Path(__file__).parent / "results"
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def machine():
    """What the figures depend on, without names of hosts or people."""
    device = jax.devices()[0]
    packages = {}
    for name in ("jax", "jaxlib", "numpy", "optax", "flax", "equinox", "dm-haiku", "torch"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"device": processor() if device.platform == "cpu" else device.device_kind, "platform": device.platform,
            "devices": jax.device_count(), "cpu": processor(), "cores": cores(), "system": platform.system(),
            "python": platform.python_version(), "versions": packages,
            "malloc tuned": all(os.environ.get(name) == value for name, value in MALLOC.items())}


def cores():
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def save(folder, *, of=None, **parts):
    """Adds the parts to today's file for this machine, or for `of`, and returns its path."""
    about = machine()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    of = of or (f"{about['device']} {about['cores']} cores" if about["platform"] == "cpu" else about["device"])
    name = re.sub(r"[^a-z0-9]+", "-", of.lower()).strip("-")
    path = Path(folder) / f"{name}-{today}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**kept, "date": today, "machine": about, **parts}, indent=1, ensure_ascii=False) + "\n")
    return path
