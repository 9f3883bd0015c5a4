"""Images in folders, one folder per class, read with Pillow."""

import warnings
from pathlib import Path

import numpy as np

from fnnet.data.files import existing_folder, reading
from fnnet.data.table import Table

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}


def read_images(folder: str | Path, *, size: tuple[int, int] | None = None, channels: int = 3) -> Table:
    """x [n h w c] float32 from 0 to 1 and y [n] from folder/CLASS/IMAGE: PNG, JPEG, BMP and WebP files, sorted by name.
    Classes are the folders, sorted by name; other files are skipped.

    size=(h, w) resizes (bilinear); without it all images must have the same size. channels=1 converts them to
    grayscale. Raises ValueError for a file that is damaged, whose format does not match its name, or with more than
    89 million pixels.

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> Path("cat").mkdir()
    >>> Image.fromarray(np.full((2, 2, 3), 255, np.uint8)).save("cat/white.png")
    >>> table = data.read_images(".")
    >>> table.x.shape, float(table.x.min()), table.classes
    ((1, 2, 2, 3), 1.0, ('cat',))
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("read_images needs Pillow, which is not installed: pip install 'fnnet[images]'") from None
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3 (red, green, blue) or 1 (grayscale); got {channels!r}")
    if size is not None and not (isinstance(size, tuple) and len(size) == 2 and all(type(s) is int and s > 0 for s in size)):
        raise ValueError(f"size must be (height, width) in pixels; got {size!r}: write size=(32, 32)")
    folder = existing_folder(folder)
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [(path, y) for y, inside in enumerate(classes) for path in sorted(inside.iterdir()) if path.suffix.lower() in FORMATS]
    if not files:
        raise ValueError(f"{folder} must hold images as {folder}/CLASS/IMAGE.png, one folder per class; got none")
    images = []
    for path, _ in files:
        with reading(path, "image"), warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning), \
                Image.open(path, formats=[FORMATS[path.suffix.lower()]]) as image:
            image = image.convert("RGB" if channels == 3 else "L")
            images.append(np.asarray(image if size is None else image.resize((size[1], size[0]), Image.Resampling.BILINEAR)))
        if images[-1].shape != images[0].shape:
            (h, w), (h0, w0) = images[-1].shape[:2], images[0].shape[:2]
            raise ValueError(f"images must have the same size; got {h}×{w} in {path} and {h0}×{w0} in {files[0][0]}: write "
                             f"size=({h0}, {w0})")
    x = np.divide(np.stack(images), 255, dtype=np.float32)
    return Table(x.reshape(*x.shape[:3], channels), np.asarray([y for _, y in files], np.int32), (), tuple(c.name for c in classes))
