"""Studies of any size, made of sidecars, small pictures and logs; nothing is tracked.

``python tests/studies.py DIRECTORY 3000`` writes one for a look, or for a measurement.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bids_tractography.config import Config
from bids_tractography.core.streamlines import Rejection, Stop
from bids_tractography.outputs.provenance import (
    RECORD_KEY,
    Fingerprint,
    InputFile,
    TractogramRecord,
    config_hash,
    environment,
    hash_of_sidecar,
)
from bids_tractography.report.thumbnails import small_picture

FINGERPRINT = Fingerprint(inputs="1", config="2", software="3")
ENVIRONMENT = environment(None)
CONFIG = Config()
TEXT = b"not a tractogram"


def record_of(name: str, random: np.random.Generator, **fields: Any) -> TractogramRecord:
    """A record with figures as a study has them."""
    generated = 20000
    kept = round(generated * random.normal(0.7, 0.01))
    angle = round(random.normal(900, 60))
    tracking_seconds = round(float(random.lognormal(3, 0.1)), 3)
    content: dict[str, Any] = {
        "fingerprint": FINGERPRINT,
        "config": CONFIG,
        "config_hash": config_hash(CONFIG),
        "inputs": [InputFile(role="dwi", uri=f"bids:study:{name}_dwi.nii.gz", sha256="0" * 64)],
        "environment": ENVIRONMENT,
        "points": 150 * kept,
        "length_quantiles_mm": {
            "0": 20, "0.05": 25, "0.25": 45, "0.5": round(random.normal(70, 2), 1), "0.75": 105,
            "0.95": 170, "1": 250,
        },
        "content_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "warnings": [],
        "checks": {
            **{
                key: {"value": float(f"{random.normal(value, sd):.4g}"), "unit": unit,
                      "usual": [0, None], "verdict": "usual"}
                for key, value, sd, unit in (
                    ("brain_volume_ml", 1350, 90, "ml"),
                    ("mean_diffusivity_mm2_s", 8e-4, 2e-5, "mm²/s"),
                    ("fractional_anisotropy", 0.21, 0.012, "1"),
                    ("white_matter_fa", 0.42, 0.015, "1"),
                    ("white_matter_md_mm2_s", 7.3e-4, 1.5e-5, "mm²/s"),
                    ("white_matter_volume_ml", 510, 40, "ml"),
                    ("grey_matter_volume_ml", 640, 50, "ml"),
                    ("csf_volume_ml", 190, 30, "ml"),
                    ("response_ratio", 7.2, 0.5, "1"),
                )
            },
            "gradient_table": {"verdict": "agrees",
                               "margin_standard_errors": round(random.normal(14, 2), 2)},
        },
        "seconds": {"reading": 0.2, "fitting": 9.4, "tracking": tracking_seconds},
        "cpu_seconds": {"reading": 0.2, "fitting": 9.1, "tracking": tracking_seconds},
        "peak_memory_mib": round(random.normal(660, 15), 1),
        "model": {},
        "gradients": {"frame": "fsl"},
        "engine": "cpu",
        "engine_version": "1",
        "engine_differences": [],
        "threads": 4,
        "rng_seed": int(random.integers(2**62)),
        "batches": 1,
        "seeds": generated,
        "seed_voxels": 21000,
        "seeds_without_direction": 0,
        "streamlines_generated": generated,
        "streamlines_kept": kept,
        "streamlines_rejected": {
            **dict.fromkeys(Rejection, 0), Rejection.TOO_SHORT: generated - kept
        },
        "ends": {
            **dict.fromkeys(Stop, 0), Stop.STOPPING_RULE: 2 * generated - angle, Stop.ANGLE: angle
        },
        "linearised": None,
    }  # fmt: skip
    checks = {**content["checks"], **fields.pop("checks", {})}
    return TractogramRecord(**{**content, **fields, "checks": checks})


def write_run(root: Path, name: str, record: TractogramRecord, suffix: str = "") -> Path:
    """Write a sidecar, and a file that it is about; return the sidecar."""
    parts = [part for part in name.split("_")[:2] if part.startswith(("sub-", "ses-"))]
    folder = root.joinpath(*parts, "dwi")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}_tract-wholebrain_track-prob{suffix}_tractogram.trx"
    file.write_bytes(TEXT)
    sizes = {"file_sha256": {file.name: "0"}, "file_bytes": {file.name: len(TEXT)}}
    content = {RECORD_KEY: json.loads(record.model_copy(update=sizes).model_dump_json())}
    content[RECORD_KEY]["sidecar_sha256"] = hash_of_sidecar(content)
    path = file.with_suffix(".json")
    path.write_text(json.dumps(content))
    return path


def write_picture(root: Path, name: str, picture: bytes) -> None:
    parts = [part for part in name.split("_")[:2] if part.startswith(("sub-", "ses-"))]
    path = root.joinpath(*parts, "figures", f"{name}_desc-thumbnail_dwi.webp")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)


def write_log(root: Path, stamp: str, **content: Any) -> None:
    """Write the log of a call that began at a time, e.g. 20260101T120000."""
    (root / "logs").mkdir(parents=True, exist_ok=True)
    (root / "logs" / f"{stamp}_host-1_participant.json").write_text(json.dumps(content))


def a_picture(random: np.random.Generator) -> bytes:
    """A head full of curves, which compresses as a real picture does."""
    side = 520
    image = np.zeros((side, side, 3))
    for _ in range(900):
        angle, radius = random.uniform(0, 2 * np.pi), random.uniform(0, 190)
        begin = random.uniform(0, 2 * np.pi)
        t = np.linspace(begin, begin + random.uniform(0.3, 1.6), 400)
        x = 260 + radius * np.cos(angle) * 0.4 + radius * np.cos(t)
        y = 250 + radius * np.sin(angle) * 0.3 + 0.75 * radius * np.sin(t)
        colour = np.abs(np.stack([np.sin(3 * angle) * np.ones_like(t), np.sin(t), np.cos(t)], -1))
        image[np.clip(y, 0, side - 1).astype(int), np.clip(x, 0, side - 1).astype(int)] = colour
    return small_picture(image)


def write_study(
    root: Path,
    n_runs: int,
    change: Callable[[int, dict[str, Any]], None] = lambda number, fields: None,
    pictures: int = 0,
) -> list[str]:
    """Write runs; `change` may set fields of their records. Return their names."""
    random = np.random.default_rng(0)
    drawn = [a_picture(random) for _ in range(pictures)]
    names = []
    for number in range(1, n_runs + 1):
        name = f"sub-{number:04d}"
        if n_runs > 20 and number % 3 == 0:
            name += "_ses-1_dir-AP"
        fields: dict[str, Any] = {}
        change(number, fields)
        write_run(root, name, record_of(name, random, **fields))
        if drawn:
            write_picture(root, name, drawn[number % len(drawn)])
        names.append(name)
    return names


def _odd(number: int, fields: dict[str, Any]) -> None:
    """A study as it is: some runs lie apart, some were made otherwise."""
    if number % 23 == 7:
        figures = {"value": 0.11, "unit": "1", "usual": [0, 1], "verdict": "usual"}
        fields["checks"] = {"white_matter_fa": figures}
        fields["streamlines_kept"] = 4100
    if number % 31 == 11:
        fields["peak_memory_mib"] = 2900.0
    if number % 9 == 4:
        fields["warnings"] = ["the DWI is raw: motion and distortion are not corrected."]
    if number % 13 == 5:
        tracking = CONFIG.tracking.model_copy(update={"max_length_mm": 200.0})
        other = CONFIG.model_copy(update={"tracking": tracking})
        fields |= {"config": other, "config_hash": config_hash(other)}


def main() -> None:
    root, n_runs = Path(sys.argv[1]), int(sys.argv[2])
    names = write_study(root, n_runs, _odd, pictures=24)
    for name in names:
        (root / f"{name}.html").write_text(f"<title>{name}</title>")
    people = ["participant_id\tage\tsex\tgroup"]
    for number, name in enumerate(names):
        sex, group = "FM"[number % 2], ("control", "patient")[number % 3 == 0]
        people.append(f"{name.partition('_')[0]}\t{20 + number % 60}\t{sex}\t{group}")
    (root / "input").mkdir(exist_ok=True)
    (root / "input" / "participants.tsv").write_text("\n".join(people) + "\n")
    description = {"GeneratedBy": [{"Name": "x"}], "DatasetLinks": {"Example study": "input"}}
    (root / "dataset_description.json").write_text(json.dumps(description))
    failed = {
        "sub-9001": {"message": "sub-9001_dwi.bvec has 63 columns, the image 64 volumes. Correct "
                     "the gradient table.", "exit_code": 65},
        "sub-9002_dir-AP": {"message": "out of memory. Provide more.", "exit_code": 75},
    }  # fmt: skip
    skipped = {"sub-9003_dir-PA": "no volume is diffusion-weighted."}
    write_log(root, "20260102T101500", finished=names, failed=failed, skipped=skipped)


if __name__ == "__main__":
    main()
