"""White-matter, grey-matter and CSF responses to each shell, estimated or read from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre

from bids_tractography.core.dwi import Dwi
from bids_tractography.core.morphology import depth_mm
from bids_tractography.core.tables import read_table
from bids_tractography.errors import DataError
from bids_tractography.reconst.base import TensorFit

_WM_ORDER = 8
_EDGE_MM = 5.0
_WM_FA = 0.2
# Fractions of a tissue's voxels that represent it, as in Dhollander (2016).
_WM_SHARE, _GM_SHARE, _CSF_SHARE = 0.005, 0.02, 0.1
_MIN_VOXELS = {"wm": 100, "gm": 30, "csf": 30}

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TissueResponses:
    """Response of each tissue as spherical harmonics in MRtrix3's scaling.

    Parameters
    ----------
    wm : ndarray, shape (shells + 1, orders)
        Zonal harmonics of even order of a bundle along z, b=0 first.
    isotropic : mapping of str to ndarray, shape (shells + 1,)
        Constant harmonics of ``gm`` (if there are three tissues) and ``csf``.
    voxels : mapping of str to int
        Number of voxels that each response was estimated from.
    warnings : tuple of str
        Doubts about the responses.
    """

    wm: Array
    isotropic: Mapping[str, Array]
    voxels: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """Responses for the sidecars, JSON values."""
        return {
            "wm": self.wm.tolist(),
            **{tissue: amounts.tolist() for tissue, amounts in self.isotropic.items()},
            "voxels": dict(self.voxels) or None,
        }

    def figures(self, shells_s_mm2: Sequence[float]) -> dict[str, float]:
        """Return measurements to check for plausibility.

        They are diffusivities at the innermost shell: that of CSF, and those of white matter along
        and across the bundle.

        Parameters
        ----------
        shells_s_mm2 : sequence of float
            b-values, innermost first.
        """
        b_s_mm2, found = shells_s_mm2[0], {}
        csf = self.isotropic["csf"]
        if min(csf[:2]) > 0:
            found["response_csf_mm2_s"] = float(np.log(csf[0] / csf[1])) / b_s_mm2
        degrees = 2 * np.arange(self.wm.shape[1])
        norms = np.sqrt((2 * degrees + 1) / (4 * np.pi))
        signal = float(self.wm[0, 0] * norms[0])
        along, across = (
            float(self.wm[1] @ (norms * eval_legendre(degrees, cosine))) for cosine in (1.0, 0.0)
        )
        if 0 < along < across < signal:
            axial, radial = (np.log(signal / value) / b_s_mm2 for value in (along, across))
            found["response_axial_mm2_s"] = float(axial)
            found["response_ratio"] = float(axial / radial)
        return found


def read_responses(files: Mapping[str, Path], n_shells: int) -> TissueResponses:
    """Read MRtrix3's text files: one line per shell, b=0 first, ``#`` for comments.

    Parameters
    ----------
    files : mapping of str to Path
        Files by tissue.
    n_shells : int
        Number of shells, not counting b=0.

    Raises
    ------
    DataError
        If a file is malformed or has another number of shells.
    """
    tables = {tissue: _table(path, n_shells) for tissue, path in files.items()}
    for tissue in ("gm", "csf"):
        if tissue in tables and tables[tissue].shape[1] != 1:
            raise DataError(
                f"{files[tissue]} has {tables[tissue].shape[1]} numbers per line; the response of "
                "an isotropic tissue has one."
            )
    if tables["wm"].shape[1] < 2:
        raise DataError(
            f"{files['wm']} has one number per line; a white-matter response has zonal harmonics "
            "of order 2 or higher.",
            "Provide the white-matter response.",
        )
    isotropic = {tissue: table[:, 0] for tissue, table in tables.items() if tissue != "wm"}
    return TissueResponses(tables["wm"], isotropic)


def _table(path: Path, n_shells: int) -> Array:
    table = read_table(path)
    if not np.isfinite(table).all():
        raise DataError(f"{path} is not a table of finite numbers.")
    if len(table) != n_shells + 1:
        raise DataError(
            f"{path} has {len(table)} lines; {n_shells + 1} are required, one for each shell and "
            "one for b=0.",
            "Provide responses for the shells of this DWI.",
        )
    if (table[:, 0] <= 0).any():
        raise DataError(
            f"{path}: the first number of each line is the mean signal, which must be positive."
        )
    return table


def estimate_responses(
    dwi: Dwi, mask: NDArray[np.bool_], tensor: TensorFit, *, grey_matter: bool
) -> TissueResponses:
    """Select voxels of each tissue by FA and signal decay, and average them (Dhollander 2016).

    White-matter voxels have the highest FA. Otsu's threshold on the decay of the others, the mean
    of ``ln(S₀/S_b)`` over the shells, separates grey matter from CSF. Grey matter is represented by
    the voxels closest to its median decay, CSF by those with the strongest decay.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    tensor : TensorFit
        Tensor fit, for FA and principal directions.
    grey_matter : bool
        Whether to estimate a grey-matter response.

    Raises
    ------
    DataError
        If a tissue has no voxels.
    """
    signals = _shell_means(dwi)
    usable = mask & (signals > 0).all(axis=-1) & (tensor.fa < 0.99)
    inside = usable & (depth_mm(mask, dwi.grid) > _EDGE_MM)
    # In thin masks, such as crops, CSF is also searched at the edge.
    inside = inside if np.count_nonzero(inside) > 0.1 * np.count_nonzero(usable) else usable
    decay = np.zeros(mask.shape)
    decay[usable] = np.log(signals[usable][:, :1] / signals[usable][:, 1:]).mean(axis=1)
    anisotropic = inside & (tensor.fa > _WM_FA)
    isotropic = inside & ~anisotropic
    chosen = {"wm": _first(anisotropic, -tensor.fa, _WM_SHARE, "wm")}
    if np.count_nonzero(isotropic) < 2:
        raise DataError(
            "no voxel of low FA is available for estimating the CSF response.",
            "Check the brain mask, or set model.response to files.",
        )
    values = decay[isotropic]
    threshold = _otsu(values)
    csf = isotropic & (decay > threshold)
    if grey_matter:
        grey = isotropic & ~csf
        middle = float(np.median(decay[grey])) if grey.any() else 0.0
        chosen["gm"] = _first(grey, np.abs(decay - middle), _GM_SHARE, "gm")
    chosen["csf"] = _first(csf, -decay, _CSF_SHARE, "csf")
    isotropic_responses = {
        tissue: signals[voxels].mean(axis=0, dtype=np.float64) * np.sqrt(4 * np.pi)
        for tissue, voxels in chosen.items()
        if tissue != "wm"
    }
    wm = _zonal(dwi, tensor, chosen["wm"])
    return TissueResponses(
        wm,
        isotropic_responses,
        {tissue: len(voxels[0]) for tissue, voxels in chosen.items()},
        tuple(_doubts(wm, isotropic_responses)),
    )


def _shell_means(dwi: Dwi) -> NDArray[np.float32]:
    """Return the mean signal of b=0 and of each shell, shape (X, Y, Z, shells + 1)."""
    groups = [dwi.gradients.b0_volumes, *(shell.volumes for shell in dwi.gradients.shells)]
    return np.stack([dwi.data[..., volumes].mean(axis=-1) for volumes in groups], axis=-1)


def _first(
    where: NDArray[np.bool_], rank: NDArray[np.floating], share: float, tissue: str
) -> tuple[NDArray[np.intp], ...]:
    """Return the voxels of lowest rank: a fraction of them, or the minimum for a mean."""
    voxels = np.argwhere(where)
    if len(voxels) == 0:
        raise DataError(
            f"no voxel is available for estimating the response of {tissue}.",
            "Check the brain mask, or set model.response to files.",
        )
    count = max(_MIN_VOXELS[tissue], round(share * len(voxels)))
    return tuple(voxels[np.argsort(rank[where], kind="stable")[:count]].T)


def _otsu(values: Array) -> float:
    """Return the threshold that separates values into the two most compact classes."""
    ordered = np.sort(values)
    counts = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    below, above = sums[:-1] / counts, (sums[-1] - sums[:-1]) / (len(ordered) - counts)
    between = counts * (len(ordered) - counts) * (above - below) ** 2
    return float(ordered[int(between.argmax())])


def _zonal(dwi: Dwi, tensor: TensorFit, voxels: tuple[NDArray[np.intp], ...]) -> Array:
    """Fit zonal harmonics to the signals of bundles after rotating them to the z axis."""
    signals, axes = dwi.data[voxels].astype(np.float64), tensor.v1[voxels]
    degrees = np.arange(0, _WM_ORDER + 1, 2)
    norms = np.sqrt((2 * degrees + 1) / (4 * np.pi))
    rows = np.zeros((len(dwi.gradients.shells) + 1, len(degrees)))
    rows[0, 0] = signals[:, dwi.gradients.b0_volumes].mean() * np.sqrt(4 * np.pi)
    for row, shell in zip(rows[1:], dwi.gradients.shells, strict=True):
        cosines = axes.astype(np.float64) @ dwi.gradients.directions[shell.volumes].T
        basis = norms * eval_legendre(degrees, cosines[..., None])
        row[:] = np.linalg.lstsq(
            basis.reshape(-1, len(degrees)), signals[:, shell.volumes].ravel(), rcond=None
        )[0]
    return rows


def _doubts(wm: Array, isotropic: Mapping[str, Array]) -> list[str]:
    decays = {"wm": wm[:, 0], **isotropic}
    doubts = []
    last = {tissue: float(np.log(row[0] / row[-1])) for tissue, row in decays.items()}
    slower = [tissue for tissue in last if tissue != "csf" and last[tissue] > 0.8 * last["csf"]]
    if slower:
        doubts.append(
            f"the CSF response hardly decays faster than that of {' and '.join(slower)}: "
            "CSF may not have been found."
        )
    if wm[-1, 1] > -0.1 * wm[-1, 0]:
        doubts.append("the white-matter response is blunt, so fODFs will be too sharp.")
    return doubts
