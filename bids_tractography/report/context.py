"""What the sections of a run's page have in common, each part made once and when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.gradients import FRAMES, Frame, GradientFiles, Gradients, read_gradients
from bids_tractography.core.images import Grid, Image, read_image, read_layout
from bids_tractography.outputs.names import entities_of, file_name
from bids_tractography.outputs.provenance import ImportRecord, sha256_of_file
from bids_tractography.report.data import (
    UNUSABLE,
    FodScan,
    RunData,
    RunFailure,
    read_volume,
    scan_fod,
)
from bids_tractography.report.page import Figures
from bids_tractography.report.sample import Survey, box_of, survey

T = TypeVar("T")

_AMPLITUDE_VOXELS = 2000
_MAX_VIEWER_VOXELS = 500_000


@dataclass(eq=False)
class Run:
    """A run whose page is being made.

    Parameters
    ----------
    data : RunData
    n_threads : int
        It changes the time, not the page.
    figures : Figures
        Collects the pictures.
    problems : list of str
        Files that cannot be read, and why; what is made of them is left out.
    """

    data: RunData
    n_threads: int = 1
    figures: Figures = field(default_factory=Figures)
    problems: list[str] = field(default_factory=list)

    @property
    def failure(self) -> RunFailure | None:
        """How it failed."""
        return self.data.failure

    def _tried(self, make: Callable[[], T]) -> T | None:
        """Return what is made; None if a file that it is made from cannot be read."""
        try:
            return make()
        except UNUSABLE as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None

    @property
    def survey(self) -> Survey | None:
        """What is known of the tractogram's file; None if there is no usable one."""
        return self._surveyed[0]

    @property
    def why_no_survey(self) -> str:
        """Why nothing is known of the tractogram's file."""
        return self._surveyed[1]

    @cached_property
    def _surveyed(self) -> tuple[Survey | None, str]:
        path, record = self.data.tractogram, self.data.record
        if path is None or record is None:
            return None, self.data.why_no_record or "its file is missing"
        count = record.streamlines if isinstance(record, ImportRecord) else record.streamlines_kept
        try:
            density = self.density
            if density is None:
                return None, "its density map is missing"
            return survey(path, count, box_of(density.data, density.grid)), ""
        except UNUSABLE as error:
            return None, f"it cannot be read ({error})"

    @cached_property
    def density(self) -> Image | None:
        """Streamlines through each voxel."""
        maps = {p.name: p for p in self.data.files if entities_of(p.name).get("param") == "tdi"}
        maps = {name: path for name, path in maps.items() if name.endswith(".nii.gz")}
        path = next(iter(maps.values()), None)
        own = self.data.sidecar_file
        if own is not None:  # of several tractograms, the map of this one
            wanted = file_name({**entities_of(own.name), "param": "tdi"}, "dwimap", ".nii.gz")
            path = maps.get(wanted, path)
        return self._tried(lambda: read_image(path, ndim=3)) if path else None

    def read(self, suffix: str, **entities: str) -> Image | None:
        """Read an image of the run; None if there is none that can be read."""
        return self._tried(lambda: self.data.read(suffix, **entities))

    @cached_property
    def fa(self) -> Image | None:
        """Fractional anisotropy."""
        return self.read("dwimap", model="tensor", param="fa")

    @cached_property
    def brain(self) -> Image | None:
        """Brain mask."""
        return self.read("mask", desc="brain")

    @cached_property
    def seed_mask(self) -> Image | None:
        """Voxels that were seeded."""
        return self.read("mask", desc="seed")

    @cached_property
    def white_matter(self) -> NDArray[np.bool_] | None:
        """Where streamlines start, or else where FA is high."""
        if self.seed_mask is not None and (self.seed_mask.data > 0).any():
            return np.asarray(self.seed_mask.data > 0)
        return np.asarray(self.fa.data > 0.2) if self.fa is not None else None

    @cached_property
    def fod(self) -> FodScan | None:
        """What is needed of the fODF."""
        return self._tried(self._scan)

    def _scan(self) -> FodScan | None:
        path, where = self.data.fod, self.white_matter
        if path is None or where is None or not where.any():
            return None
        if read_layout(path, ndim=4)[0].shape != where.shape:
            return None
        others = {axis: tuple(a for a in range(3) if a != axis) for axis in range(3)}
        places = {axis: int(np.argmax(where.sum(axis=others[axis]))) for axis in range(3)}
        found = np.argwhere(where)
        order = np.argsort(np.random.Philox(key=1).random_raw(len(found)))
        return scan_fod(path, places, found[np.sort(order[:_AMPLITUDE_VOXELS])])

    @cached_property
    def direction(self) -> tuple[NDArray[np.float32], str] | None:
        """Magnitudes of the principal direction along x, y, z, and what they are of."""
        path = self.data.find("dwimap", model="tensor", param="v1")
        v1 = self._tried(lambda: read_image(path, ndim=4)) if path else None
        if v1 is not None:
            return np.abs(v1.data), "principal direction of the tensor"
        if self.fod is None:
            return None
        total = np.linalg.norm(self.fod.direction, axis=-1, keepdims=True)
        return self.fod.direction / np.maximum(total, 1e-9), "mean direction of the fODF"

    @cached_property
    def gradients(self) -> Gradients | None:
        """The gradient scheme, if the source dataset is there and has the files that were used."""
        return self._tried(self._gradients)

    def _gradients(self) -> Gradients | None:
        record = self.data.tracked
        image = self.data.input("dwi")
        if record is None or image is None:
            return None
        hashes = {file.role: file.sha256 for file in record.inputs}
        files: dict[str, Path | None] = {}
        for role in ("bval", "bvec", "b"):
            path = self.data.input(role)
            files[role] = path if path and sha256_of_file(path) == hashes[role] else None
        grid, shape, _ = read_layout(image, ndim=4)
        frame = next((k for k in FRAMES if k == record.gradients.get("frame")), None)
        if frame is None:
            return None
        return read_gradients(
            GradientFiles(files["bval"], files["bvec"], files["b"]),
            grid,
            shape[3],
            record.config.gradients,
            Frame(frame, ""),
        )

    @cached_property
    def b0(self) -> tuple[Image, int] | None:
        """The first volume without diffusion weighting, if the source dataset is there."""
        return self._tried(self._b0)

    def _b0(self) -> tuple[Image, int] | None:
        path = self.data.input("dwi")
        if path is None or self.gradients is None or not len(self.gradients.b0_volumes):
            return None
        number = int(self.gradients.b0_volumes[0])
        return read_volume(path, number), number

    @cached_property
    def viewer_volume(self) -> tuple[NDArray[np.uint8], Grid, int] | None:
        """Slices of the viewer: colours times FA, brain, density; on fewer voxels if need be.

        Returns
        -------
        volume : ndarray of uint8, shape (5, X, Y, Z)
            Red, green, blue; 255 in the brain; density on a logarithmic scale.
        grid : Grid
            In RAS+ order.
        factor : int
            Voxels that one stands for, along each axis.
        """
        if self.fa is None or self.density is None:
            return None
        grid = self.fa.grid
        fa = np.clip(self.fa.data, 0, 1)[..., None]
        colours = self.direction[0] * fa if self.direction else np.repeat(fa, 3, axis=3) / 3**0.5
        brain = self.brain.data > 0 if self.brain is not None else fa[..., 0] > 0
        density = np.log1p(np.maximum(self.density.data, 0))
        density /= np.percentile(density[density > 0], 99.7) if (density > 0).any() else 1
        layers = np.concatenate([colours, brain[..., None], density[..., None]], axis=3)
        found = np.argwhere(brain | (density > 0))
        low, high = np.maximum(found.min(axis=0) - 1, 0), found.max(axis=0) + 2
        layers = layers[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        factor = int(np.ceil((np.prod(layers.shape[:3]) / _MAX_VIEWER_VOXELS) ** (1 / 3)))
        layers = _coarser(layers, factor)
        volume = np.rint(255 * np.clip(layers, 0, 1)).astype(np.uint8)
        affine = grid.affine @ np.diag([factor, factor, factor, 1.0])
        affine[:3, 3] = grid.to_mm(low[None] + (factor - 1) / 2)[0]
        return np.moveaxis(volume, 3, 0), Grid(volume.shape[:3], affine), factor


def _coarser(volume: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """Return the means of blocks of voxels, shape (X, Y, Z, C)."""
    if factor == 1:
        return volume
    pad = [(0, -n % factor) for n in volume.shape[:3]]
    padded = np.pad(volume, [*pad, (0, 0)])
    x, y, z = (n // factor for n in padded.shape[:3])
    blocks = padded.reshape(x, factor, y, factor, z, factor, -1)
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float32))
