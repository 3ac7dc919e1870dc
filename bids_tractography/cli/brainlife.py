"""App for brainlife.io: reads ``config.json``, writes ``track/track.tck`` and ``product.json``.

Inputs have the data types ``neuro/dwi`` and, optionally, ``neuro/mask`` (brain or 5tt) and
``neuro/anat/t1w``; the output is ``neuro/track/tck``.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_tractography import BIDS_VERSION
from bids_tractography.cli.main import main as run_command
from bids_tractography.outputs.files import write_json
from bids_tractography.outputs.run import read_record

# Parameters of the app and the configuration keys that they set; besides these, there are preset,
# n_seeds, n_streamlines and settings.
_PARAMETERS = {
    "model": "model.kind",
    "algorithm": "tracking.algorithm.kind",
    "step_size_mm": "tracking.algorithm.step_size_mm",
    "max_angle_deg": "tracking.algorithm.max_angle_deg",
    "min_length_mm": "tracking.min_length_mm",
    "max_length_mm": "tracking.max_length_mm",
    "stopping": "stopping.kind",
    "rng_seed": "seeding.rng_seed",
}


def main(config: Path, folder: Path) -> int:
    """Run the app.

    Parameters
    ----------
    config : Path
        ``config.json``; its paths are relative to `folder`.
    folder : Path
        Folder of all outputs: ``track/track.tck``, ``product.json``, and the derivative dataset in
        ``output``.

    Returns
    -------
    int
        Exit code of the command line.
    """
    asked = json.loads(config.read_text(encoding="utf-8"))
    dataset, derivative = _make_dataset(asked, folder)
    output = folder / "output"
    settings = [word for setting in _settings(asked, folder) for word in ("--set", setting)]
    errors = _Errors(logging.ERROR)
    logging.getLogger("bids_tractography").addHandler(errors)
    try:
        words = ["participant", "--overwrite", "--derivatives", str(derivative)]
        if asked.get("preset"):
            words += ["--config", str(asked["preset"])]
        code = run_command([str(dataset), str(output), *words, *settings])
    finally:
        logging.getLogger("bids_tractography").removeHandler(errors)
    tracks = sorted(output.glob("sub-*/**/*_tractogram.tck"))
    if code == 0 and tracks:
        (folder / "track").mkdir(exist_ok=True)
        shutil.copyfile(tracks[0], folder / "track" / "track.tck")
        write_json(folder / "product.json", _product(tracks[0]))
    else:
        texts = errors.texts or ["The request is invalid: see the log."]
        messages = [_message("error", text) for text in texts]
        write_json(folder / "product.json", {"brainlife": messages})
    return code


def _given(asked: Mapping[str, Any], key: str, folder: Path) -> Path | None:
    """Return a file of the configuration; optional files may be named without existing."""
    path = folder / str(asked[key]) if asked.get(key) else None
    return path.resolve() if path and path.exists() else None


def _make_dataset(asked: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Link the inputs under their BIDS names."""
    subject, session = _labels(asked)
    parts = [f"sub-{subject}", *([f"ses-{session}"] if session else [])]
    raw, derivative = folder / "bids", folder / "bids" / "derivatives" / "brainlife"
    stem = "_".join(parts)
    files = {
        "dwi": raw.joinpath(*parts, "dwi", f"{stem}_dwi.nii.gz"),
        "bvals": raw.joinpath(*parts, "dwi", f"{stem}_dwi.bval"),
        "bvecs": raw.joinpath(*parts, "dwi", f"{stem}_dwi.bvec"),
        "t1": raw.joinpath(*parts, "anat", f"{stem}_T1w.nii.gz"),
        "mask": derivative.joinpath(*parts, "dwi", f"{stem}_desc-brain_mask.nii.gz"),
    }
    shutil.rmtree(raw, ignore_errors=True)
    for root, kind in ((raw, "raw"), (derivative, "derivative")):
        root.mkdir(parents=True)
        description = {"Name": "brainlife", "BIDSVersion": BIDS_VERSION, "DatasetType": kind}
        write_json(root / "dataset_description.json", description)
    for key, link in files.items():
        path = _given(asked, key, folder)
        if path:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return raw, derivative


def _labels(asked: Mapping[str, Any]) -> tuple[str, str]:
    """Return the label of the participant and, if there is one, of the session."""
    inputs: list[dict[str, Any]] = asked.get("_inputs") or [{}]
    meta = inputs[0].get("meta", {})
    subject, session = (
        re.sub(r"[^0-9a-zA-Z]", "", str(meta.get(key) or "")) for key in ("subject", "session")
    )
    return subject or "01", session


def _settings(asked: Mapping[str, Any], folder: Path) -> Iterator[str]:
    yield "output.formats=[tck]"
    tissue = _given(asked, "5tt", folder)
    if tissue:
        yield f"tissue={json.dumps({'kind': '5tt', 'image': str(tissue)})}"
        if not asked.get("stopping"):
            yield "stopping.kind=act"
    for name, key in _PARAMETERS.items():
        if asked.get(name) not in (None, ""):
            yield f"{key}={json.dumps(asked[name])}"
    for name, kind in (("n_seeds", "total"), ("n_streamlines", "select")):
        if asked.get(name):
            yield f"seeding.seeds={json.dumps({'kind': kind, 'count': asked[name]})}"
    yield from str(asked.get("settings") or "").splitlines()  # any other keys


class _Errors(logging.Handler):
    """Collects the errors in the log for the product."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _message(kind: str, text: str) -> dict[str, str]:
    return {"type": kind, "msg": text}


def _product(track: Path) -> dict[str, Any]:
    """Return measurements and images of a tractogram for display on brainlife.io."""
    record = read_record(track)
    lengths = record["length_quantiles_mm"]
    text = (
        f"{record['streamlines_kept']} streamlines of {record['seeds']} seeds; median length "
        f"{lengths['0.5']:.0f} mm; rng_seed {record['rng_seed']}"
    )
    density = next(track.parent.glob("*_param-tdi_dwimap.nii.gz"))
    picture = base64.b64encode(_png(_projections(nib.load(density)))).decode()
    share = [float(quantile) for quantile in lengths]
    return {
        "brainlife": [
            _message("success", text),
            *(_message("warning", warning) for warning in record["warnings"]),
            {"type": "image/png", "name": "Streamlines through each voxel", "base64": picture},
            _plot(
                "Length",
                {"x": list(lengths.values()), "y": share, "mode": "lines+markers"},
                ("mm", "share of streamlines up to this length"),
            ),
            _plot(
                "Where streamlines end",
                {"type": "bar", "x": list(record["ends"]), "y": list(record["ends"].values())},
                ("", "ends"),
            ),
            _plot(
                "Rejected streamlines",
                {
                    "type": "bar",
                    "x": list(record["streamlines_rejected"]),
                    "y": list(record["streamlines_rejected"].values()),
                },
                ("", "streamlines"),
            ),
        ],
        "tags": [record["config"]["tracking"]["algorithm"]["kind"]],
        "meta": {"streamlines": record["streamlines_kept"], "rng_seed": record["rng_seed"]},
    }


def _plot(name: str, trace: dict[str, Any], axes: tuple[str, str]) -> dict[str, Any]:
    layout = {"xaxis": {"title": axes[0]}, "yaxis": {"title": axes[1]}}
    return {"type": "plotly", "name": name, "data": [trace], "layout": layout}


def _projections(image: Any) -> NDArray[np.uint8]:
    """Sum a density along each axis, side by side, on a logarithmic scale with its own maximum."""
    density = np.asarray(nib.as_closest_canonical(image).dataobj, dtype=float)
    sums = [np.log1p(density.sum(axis=axis)) for axis in range(3)]
    panels = [np.rot90(255 * panel / max(panel.max(), 1e-9)) for panel in sums]
    rows = max(panel.shape[0] for panel in panels)
    padded = [np.pad(panel, ((0, rows - panel.shape[0]), (0, 2))) for panel in panels]
    return np.hstack(padded).round().astype(np.uint8).repeat(3, axis=0).repeat(3, axis=1)


def _png(grey: NDArray[np.uint8]) -> bytes:
    """Encode an image (height, width) as PNG (ISO/IEC 15948)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    height, width = grey.shape
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    lines = np.pad(grey, ((0, 0), (1, 0))).tobytes()  # each line begins with its filter: none
    body = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in body)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path.cwd()))
