"""NIfTI images and their grids.

Every image is held in the order nearest to RAS+, regardless of its order in the file, and written
back in the order of the file. The same head thus yields the same array however it is stored.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bids_tractography.errors import DataError, GridError
from bids_tractography.machine.files import (
    max_plain_bytes,
    open_plain,
    read_exactly,
    read_to_end,
)

Scalar = TypeVar("Scalar", bound=np.generic)

# Scanner software rounds direction cosines to about 1e-4; real shears are far larger.
_SHEAR_TOLERANCE = 0.01
# Millimetres per NIfTI spatial unit; an unknown unit is taken as mm, as in other software.
_MM_PER_UNIT = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
_UNIT_WORDS = {1: "metres", 3: "micrometres"}
_CODES = ("sform_code", "qform_code")
_VOXEL_RANGE_MM = (1e-3, 100.0)
_GRID_TOLERANCE_MM = 1e-2
_HEADER_BYTES = 540  # size of a NIfTI-2 header; that of NIfTI-1 has 348
# The size of images with a greater compression ratio is measured before memory is allocated.
_USUAL_EXPANSION, _SMALL_BYTES = 32, 1 << 26


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid as stored in its file, with properties in the order nearest to RAS+.

    Parameters
    ----------
    stored_shape : tuple of int
        Spatial shape in the file.
    stored_affine : ndarray, shape (4, 4)
        Voxel indices of the file to RAS+ mm.
    """

    stored_shape: tuple[int, int, int]
    stored_affine: NDArray[np.float64]

    @cached_property
    def _orientation(self) -> NDArray[np.float64]:
        return np.asarray(io_orientation(self.stored_affine))

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Spatial shape in RAS+ order."""
        order = self._orientation[:, 0].astype(int)
        shape = np.empty(3, int)
        shape[order] = self.stored_shape
        return int(shape[0]), int(shape[1]), int(shape[2])

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """Voxel indices in RAS+ order to RAS+ mm, shape (4, 4)."""
        return np.asarray(self.stored_affine @ inv_ornt_aff(self._orientation, self.stored_shape))

    @cached_property
    def voxel_size_mm(self) -> NDArray[np.float64]:
        """Voxel edge lengths in RAS+ order, shape (3,)."""
        return np.asarray(np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """Unit vectors of the image axes in RAS+ mm, as columns, orthonormal, shape (3, 3)."""
        return nearest_rotation(self.affine)

    def to_mm(self, voxels: NDArray[np.floating | np.integer]) -> NDArray[np.float64]:
        """Turn voxel coordinates (N, 3) into RAS+ mm."""
        return apply_affine(self.affine, np.asarray(voxels, np.float64))

    def to_voxels(self, points_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Turn RAS+ mm (N, 3) into voxel coordinates; voxel centres are integers."""
        to_voxels = np.asarray(np.linalg.inv(self.affine))
        return apply_affine(to_voxels, np.asarray(points_mm, np.float64))

    def count_inside(self, points_mm: NDArray[np.floating]) -> int:
        """Count the points (N, 3), RAS+ mm, that are in a voxel of the grid."""
        voxels = np.rint(self.to_voxels(points_mm))
        return int(np.count_nonzero(((voxels >= 0) & (voxels < self.shape)).all(axis=1)))

    def matches(self, other: Grid) -> bool:
        """Return whether two grids have the same voxels in mm, however they are stored."""
        if self.shape != other.shape:
            return False
        corners = np.vstack([np.zeros(3), np.diag(self.shape)])
        apart = np.abs(self.to_mm(corners) - other.to_mm(corners)).max()
        return bool(apart < _GRID_TOLERANCE_MM)

    def from_stored(self, data: NDArray[Scalar]) -> NDArray[Scalar]:
        """Reorder an array from the order of the file to RAS+ order (a view)."""
        return np.asarray(apply_orientation(data, self._orientation))

    def to_stored(self, data: NDArray[Scalar]) -> NDArray[Scalar]:
        """Reorder an array from RAS+ order to the order of the file (a view)."""
        back = ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), self._orientation)
        return np.asarray(apply_orientation(data, back))

    def describe(self) -> str:
        """Shape, voxel size and orientation, for messages."""
        shape = "x".join(str(n) for n in self.stored_shape)
        size = "x".join(f"{s:.3g}" for s in self.voxel_size_mm)
        codes = "".join(nib.aff2axcodes(self.stored_affine))
        return f"{shape} voxels stored {codes}, {size} mm, origin {np.round(self.affine[:3, 3], 2)}"


def apply_affine(affine: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Transform points, shape (n, 3), by an affine, shape (4, 4)."""
    # Sums of columns rather than a matrix product: BLAS may round a row differently with the
    # number of rows, and a point must not depend on the points it is batched with.
    moved: NDArray[np.float64] = (
        points[:, 0:1] * affine[:3, 0]
        + points[:, 1:2] * affine[:3, 1]
        + points[:, 2:3] * affine[:3, 2]
        + affine[:3, 3]
    )
    return moved


def nearest_rotation(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the orthonormal matrix nearest to the axes of an affine, by polar decomposition."""
    left, _, right = np.linalg.svd(affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    return np.asarray(left @ right)


@dataclass(frozen=True, eq=False)
class Image:
    """An array in RAS+ order and its grid.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, V)
        Values; zero where the value in the file is not finite.
    grid : Grid
    missing : ndarray of bool, shape (X, Y, Z), or None
        Voxels with a NaN or infinite value; None if there are none.
    """

    data: NDArray[np.float32]
    grid: Grid
    missing: NDArray[np.bool_] | None = None

    def require_finite(self, where: NDArray[np.bool_], path: Path) -> None:
        """Check that all values in the given voxels are finite.

        Parameters
        ----------
        where : ndarray of bool, shape (X, Y, Z)
            Voxels to check; NaN elsewhere does not matter.
        path : Path
            File of the image, for the error message.

        Raises
        ------
        DataError
            If a value is NaN or infinite.
        """
        n_bad = 0 if self.missing is None else int(np.count_nonzero(self.missing & where))
        if n_bad:
            raise DataError(
                f"{path}: {n_bad} voxels of the brain are NaN or infinite.",
                "Find out where they come from; exclude them from the brain mask if they do not "
                "matter.",
            )


def read_image(path: Path, *, ndim: int) -> Image:
    """Read a NIfTI image as float32.

    Values that are not finite are set to zero and marked as missing, because most programs write
    NaN outside the brain.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.
    ndim : int
        Required number of dimensions; trailing dimensions of length 1 are ignored.

    Raises
    ------
    NoInputError
        If the file does not exist (e.g. a dangling DataLad link) or is not a regular file.
    DataError
        If the file cannot be read to its end, has other dimensions, or has no finite value.
    GridError
        If the affine is unusable.
    """
    with _faults(path, "It may be truncated or damaged; download or create it again."):
        header = _read_header(path)
        shape = _shape(header, ndim)
        if len(shape) != ndim:
            raise DataError(f"{path} has {len(shape)} dimensions {shape}; {ndim} are required.")
        if header.get_data_dtype().kind not in "biuf":
            raise DataError(f"{path} holds {header.get_data_dtype()} values; numbers are required.")
        grid = _grid(path, header)
        data = _values(path, header).reshape(shape)
    missing = None
    finite = np.isfinite(data)
    if not finite.all():
        if not finite.any():
            raise DataError(f"{path} has no finite value: all are NaN or infinite.")
        data = np.where(finite, data, np.float32(0))
        bad: NDArray[np.bool_] = ~finite if ndim == 3 else ~np.asarray(finite.all(axis=3))
        missing = np.ascontiguousarray(grid.from_stored(bad), dtype=np.bool_)
    ordered = np.ascontiguousarray(grid.from_stored(data), dtype=np.float32)
    return Image(ordered, grid, missing)


@contextmanager
def _faults(path: Path, remedy: str = "") -> Iterator[None]:
    """Convert exceptions while reading a file to DataError with the path."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except (
        *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError),
        *(zlib.error, HeaderDataError),
    ) as error:
        raise DataError(f"{path} cannot be read: {error}.", remedy) from None


def read_volumes(path: Path) -> Iterator[NDArray[np.float32]]:
    """Read the volumes of a series one after another, each (X, Y, Z) in RAS+ order.

    Values that are not finite become zero. What follows the last volume that is asked for is not
    read, nor is the checksum of the file compared.

    Raises
    ------
    DataError, GridError
        If it is no usable series of images.
    """
    grid, shape, _ = read_layout(path, ndim=4)
    with _faults(path), open_plain(path) as stream:
        header = _read_header(path)
        dtype, slope = header.get_data_dtype(), header.get_slope_inter()
        stream.seek(header.get_data_offset())
        for _ in range(shape[3]):
            content = read_exactly(stream, prod(shape[:3]) * dtype.itemsize)
            if content is None:
                raise ValueError("it is truncated")
            stored = np.frombuffer(content, dtype).reshape(shape[:3], order="F")
            values = np.asarray(stored, np.float32) * (slope[0] or 1) + (slope[1] or 0)
            finite = np.nan_to_num(values, posinf=0, neginf=0)
            yield np.asarray(grid.from_stored(finite), np.float32)


def _values(path: Path, header: nib.Nifti1Header) -> NDArray[np.float32]:
    """Read the scaled values as float32, and the file to its end, where gzip has its checksum."""
    dtype, begin = header.get_data_dtype(), header.get_data_offset()
    n_bytes = begin + prod(header.get_data_shape()) * dtype.itemsize
    fault = f"its header announces {n_bytes} bytes, more than the file holds"
    if n_bytes > max_plain_bytes(path):
        raise ValueError(fault)
    if n_bytes > _SMALL_BYTES + _USUAL_EXPANSION * path.stat().st_size:
        with open_plain(path) as stream:
            if read_to_end(stream) < n_bytes:
                raise ValueError(fault)
    with open_plain(path) as stream:
        # Not memory-mapped: a file that is truncated later would crash the process.
        values = np.asanyarray(ArrayProxy(stream, header, mmap=False), dtype=np.float32)
        read_to_end(stream)
    return values


def _grid(path: Path, header: nib.Nifti1Header) -> Grid:
    affine = _affine(header)
    linear = affine[:3, :3]
    if _is_singular(affine):
        raise GridError(f"{path}: its affine is singular: {affine.tolist()}.")
    sizes_mm = np.sqrt((linear**2).sum(axis=0))
    low, high = _VOXEL_RANGE_MM
    if not (sizes_mm.min() > low and sizes_mm.max() < high):
        words = "x".join(f"{size:.3g}" for size in sizes_mm)
        unit_word = _UNIT_WORDS.get(_unit_code(header), "millimetres")
        raise GridError(
            f"{path}: voxels of {words} mm are not possible; the header states {unit_word} as "
            "its unit (xyzt_units).",
            "Correct the unit or the affine of the header.",
        )
    unit = linear / sizes_mm
    shear = np.abs(unit.T @ unit - np.eye(3)).max()
    if shear > _SHEAR_TOLERANCE:
        raise GridError(
            f"{path}: its affine has a shear (axes are {shear:.3f} from orthogonal).",
            "Resample it onto a grid with orthogonal axes.",
        )
    stored_shape = (*header.get_data_shape(), 1, 1, 1)[:3]
    return Grid((int(stored_shape[0]), int(stored_shape[1]), int(stored_shape[2])), affine)


def _unit_code(header: nib.Nifti1Header) -> int:
    return int(header["xyzt_units"]) & 7


def _affine(header: nib.Nifti1Header) -> NDArray[np.float64]:
    """Return voxel indices to RAS+ mm: the sform, or the qform if only that one is valid."""
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    if _is_singular(affine):
        qform = _qform(header)
        affine = affine if qform is None or _is_singular(qform) else qform
    affine[:3] *= _MM_PER_UNIT.get(_unit_code(header), 1.0)
    return affine


def _qform(header: nib.Nifti1Header) -> NDArray[np.float64] | None:
    """Return the affine of the qform; None if it is not set or malformed."""
    try:
        affine = header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError):
        return None
    return None if affine is None else np.array(affine, dtype=np.float64)


def _is_singular(affine: NDArray[np.float64]) -> bool:
    """Return whether the axes do not span a volume."""
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not np.isfinite(affine).all() or not (sizes > 0).all():
        return True
    return bool(abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-3)


def header_warnings(path: Path) -> list[str]:
    """Return warnings about contradictory or unusual header fields of an image.

    Raises
    ------
    DataError, GridError
        If the image is unusable.
    """
    header = _header_and_grid(path)[0]
    warnings = []
    unit = _UNIT_WORDS.get(_unit_code(header))
    if unit:
        warnings.append(f"{path.name}: the header is in {unit}; converted to mm.")
    if _unit_code(header) not in _MM_PER_UNIT:
        warnings.append(f"{path.name}: the header has an unknown unit of length; taken as mm.")
    if not any(int(header[name]) for name in _CODES):
        warnings.append(
            f"{path.name}: the header has neither an sform nor a qform: left and right cannot be "
            "distinguished."
        )
    sform, qform = np.asarray(header.get_best_affine(), dtype=np.float64), _qform(header)
    if qform is None or _is_singular(qform):
        return warnings
    if _is_singular(sform):
        warnings.append(f"{path.name}: the sform is singular; the qform is used.")
    elif np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        warnings.append(
            f"{path.name}: sform and qform disagree in handedness: one of them swaps left and "
            "right. The sform is used; check the side of a known landmark."
        )
    return warnings


def write_image(path: Path, data: NDArray[np.generic], grid: Grid) -> None:
    """Write an array in RAS+ order to a ``.nii.gz`` in the stored order of its grid.

    The bytes depend on the array and the grid only.

    Parameters
    ----------
    path : Path
        File to write.
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, V)
        Values in RAS+ order.
    grid : Grid
        Grid of the values.
    """
    stored = np.asfortranarray(grid.to_stored(data))
    image = nib.Nifti1Image(stored, grid.stored_affine, dtype=stored.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.stored_affine, code="scanner")
    image.set_qform(grid.stored_affine, code="scanner")
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=3, mtime=0) as packed,
    ):
        image.to_file_map({"image": nib.FileHolder(fileobj=packed)})


def read_grid(path: Path) -> Grid:
    """Read the grid of an image without its values.

    Raises
    ------
    DataError, GridError
        If the image is unusable.
    """
    return _header_and_grid(path)[1]


def read_layout(path: Path, *, ndim: int) -> tuple[Grid, tuple[int, ...], np.dtype[Any]]:
    """Read grid, shape and data type of an image without its values.

    Raises
    ------
    DataError, GridError
        If the image has other dimensions or is unusable.
    """
    header, grid = _header_and_grid(path)
    shape, dtype = _shape(header, ndim), np.dtype(header.get_data_dtype())
    if len(shape) != ndim:
        raise DataError(f"{path} has {len(shape)} dimensions {shape}; {ndim} are required.")
    if dtype.kind not in "biuf":
        raise DataError(f"{path} holds {dtype} values; numbers are required.")
    return grid, shape, dtype


def read_shape(path: Path) -> tuple[int, ...]:
    """Read the shape of an image, without trailing dimensions of length 1.

    Raises
    ------
    DataError, GridError
        If the image is unusable.
    """
    return _shape(_header_and_grid(path)[0], 3)


def _header_and_grid(path: Path) -> tuple[nib.Nifti1Header, Grid]:
    with _faults(path):
        header = _read_header(path)
        return header, _grid(path, header)


def _read_header(path: Path) -> nib.Nifti1Header:
    """Read a header without its extensions, whose declared lengths cannot be trusted."""
    with open_plain(path) as stream:
        content = stream.read(_HEADER_BYTES)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(content):
            header = kind(content[: kind.sizeof_hdr])
            break
    else:
        raise ValueError("it does not begin with a NIfTI header")
    if not header.get_data_shape() or min(header.get_data_shape()) < 1:
        raise ValueError(f"its dimensions are {header.get_data_shape()}")
    return header


def _shape(header: nib.Nifti1Header, ndim: int) -> tuple[int, ...]:
    """Return the shape without trailing dimensions of length 1 beyond `ndim`."""
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > ndim and shape[-1] == 1:
        shape = shape[:-1]
    return shape
