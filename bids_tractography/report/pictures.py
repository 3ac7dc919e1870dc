"""The sections of a run's page that are looked at: tractogram, density, model, maps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.core.fodf import AXES, axes_basis, sh_basis, sh_order_of
from bids_tractography.core.images import Grid
from bids_tractography.report import charts, glyphs, maps
from bids_tractography.report.context import Run
from bids_tractography.report.data import as_json, real
from bids_tractography.report.page import number
from bids_tractography.report.raster import six_views
from bids_tractography.report.sample import pack
from bids_tractography.report.thumbnails import FIGURE, small_picture

_VIEW_PIXELS, _VIEW_ORDER = 520, "LRAPSI"
_VIEW_STREAMLINES = 12_000
_GLYPH_PIXELS, _GLYPH_ROWS, _GLYPH_COLUMNS = 40, 14, 18
_ZOOM = 0.7  # of the viewer at the start: the corners of a head's box are empty
_PLANES = {2: "axial", 1: "coronal", 0: "sagittal"}
# Okabe and Ito's colours, which people who confuse red and green can tell apart.
GOLD, BLUE, PINK = (0.94, 0.78, 0.1), (0.34, 0.71, 0.91), (0.9, 0.5, 0.7)
# Viridis, inferno: brightness rises with the value.
_HEAT = np.array(
    [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]]
) / np.float32(255)


def tractogram(run: Run) -> dict[str, Any] | None:
    """Return the viewer's controls and the six views."""
    survey = run.survey
    if survey is None:
        return {"problem": run.why_no_survey} if run.data.sidecar_file else None
    sample = survey.sample
    few = sample.first(_VIEW_STREAMLINES)
    views = {}
    for name, words, image in six_views(few.points_mm, few.lengths, _VIEW_PIXELS, run.n_threads):
        alt = f"{len(few):,} streamlines seen {words}"
        views[name] = (words, run.figures.picture(f"view{name}", image, alt))
        if name == _VIEW_ORDER[0]:
            run.figures.files[FIGURE] = small_picture(image)
    return {
        "problem": "",
        "views": [views[name] for name in _VIEW_ORDER if name in views],
        "n_drawn": len(few),
        "n_shown": len(sample),
        "n_streamlines": survey.n_streamlines,
        "max_error_mm": math.ceil(100 * sample.max_error_mm) / 100,
        "max_length_mm": 5 * math.ceil(sample.lengths_mm.max(initial=1) / 5),
        "values": list(sample.values),
        "has_volume": run.viewer_volume is not None,
        "image_words": f"FA, coloured by the {run.direction[1]}" if run.direction else "",
    }


def viewer_data(run: Run) -> dict[str, str]:
    """Return what the viewer reads from the page, by the id of its element."""
    survey = run.survey
    if survey is None:
        return {}
    sample = survey.sample
    made = run.viewer_volume
    points = sample.points_mm
    low = points.min(axis=0) if len(points) else np.zeros(3)
    high = points.max(axis=0) if len(points) else np.ones(3)
    meta: dict[str, Any] = {
        "name": run.data.name,
        "streamlines": len(sample),
        "points": len(sample.points),
        "unit": sample.unit_mm,
        "lengthUnit": sample.length_unit_mm,
        "origin": sample.origin_mm.tolist(),
        "centre": ((low + high) / 2).tolist(),
        "radius": max(float(np.linalg.norm(high - low)) / 2 * _ZOOM, 1e-3),
        "box": [low.tolist(), high.tolist()],
        "values": [
            {"name": name, "low": values.low, "high": values.high}
            for name, values in sample.values.items()
        ],
    }
    texts = {"viewer-streamlines": survey.packed}
    if sample.values:
        content = b"".join(values.scaled.tobytes() for values in sample.values.values())
        texts["viewer-values"] = pack(content)
    if made is not None:
        volume, grid, _ = made
        meta |= {"shape": list(volume.shape[1:]), **_frames(grid, sample.origin_mm)}
        # x is the fastest.
        texts["viewer-volume"] = pack(np.ascontiguousarray(volume.transpose(0, 3, 2, 1)).tobytes())
    return {"viewer-meta": as_json(meta), **texts}


def _frames(grid: Grid, origin_mm: NDArray[np.float64]) -> dict[str, Any]:
    """Return where the voxels are, relative to the origin of the streamlines."""
    affine = grid.affine.copy()
    affine[:3, 3] -= origin_mm
    return {"affine": affine[:3].tolist(), "inverse": np.linalg.inv(affine)[:3].tolist()}


def density(run: Run) -> dict[str, Any] | None:
    """Return slices of the directional density, and of the streamlines in each voxel."""
    survey, image = run.survey, run.density
    pictures: dict[str, Any] = {}
    if survey is not None:
        edge = np.full(3, survey.density_edge_mm)
        there = survey.density.max(axis=-1) > 0
        drawn = maps.mosaic(survey.density, there, edge)
        alt = "Slices of the track density, coloured by direction"
        pictures["directional"] = run.figures.picture("directional", drawn, alt)
        pictures["edge_mm"] = survey.density_edge_mm
        pictures["n_surveyed"], pictures["n_streamlines"] = survey.n_surveyed, survey.n_streamlines
    if image is not None and (image.data > 0).any():
        values = np.log1p(np.maximum(image.data, 0))
        values /= np.percentile(values[values > 0], 99.7)
        where = run.brain.data > 0 if run.brain is not None else image.data > 0
        drawn = maps.mosaic(_heat(values), where, image.grid.voxel_size_mm)
        pictures["visits"] = run.figures.picture("density", drawn, "Slices of the track density")
        pictures["most"] = int(image.data.max())
    return pictures or None


def _heat(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Colour values from 0 to 1."""
    place = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(place.astype(int), len(_HEAT) - 2)
    share = (place - low)[..., None]
    return np.asarray((1 - share) * _HEAT[low] + share * _HEAT[low + 1], np.float32)


def ends_map(run: Run) -> dict[str, Any] | None:
    """Return where streamlines end, over the tissue, where there is one."""
    survey, tissue = run.survey, _tissue(run)
    if survey is None or tissue is None or run.fa is None:
        return None
    grid = run.fa.grid
    voxels = np.rint(grid.to_voxels(survey.ends_mm)).astype(int)
    inside = ((voxels >= 0) & (voxels < grid.shape)).all(axis=1)
    counts = np.zeros(grid.shape, np.float32)
    np.add.at(counts, tuple(voxels[inside].T), 1)
    if not counts.any():
        return None
    counts /= np.percentile(counts[counts > 0], 98)
    opacity = np.clip(counts, 0, 1)[..., None] ** 0.5
    grey = 0.3 * tissue["wm"] + 0.17 * tissue["gm"] + 0.04 * tissue["csf"]
    mixed = grey[..., None] * (1 - opacity) + _heat(0.25 + 0.75 * counts) * opacity
    where = tissue["wm"] + tissue["gm"] + tissue["csf"] > 0.5
    alt = "Ends of streamlines over slices of the tissue"
    picture = run.figures.picture("ends", maps.mosaic(mixed, where, grid.voxel_size_mm), alt)
    return {"picture": picture, "n_surveyed": survey.n_surveyed}


def _tissue(run: Run) -> dict[str, NDArray[np.float32]] | None:
    found = {name: run.read("probseg", label=name.upper()) for name in ("wm", "gm", "csf")}
    images = {name: image.data for name, image in found.items() if image is not None}
    return images if len(images) == 3 else None


def model(run: Run) -> dict[str, Any] | None:
    """Return glyphs of three planes, the response, and amplitudes."""
    record, scan = run.data.tracked, run.fod
    if scan is None:
        return None
    details = record.model if record else run.data.details(run.data.fod)
    response = _response(details)
    return {
        "glyphs": list(_glyphs(run)),
        "smallest": f"{100 * glyphs.SMALLEST:.0f}",
        "response": run.figures.chart("response", response[0]) if response else "",
        "response_words": response[1] if response else "",
        "response_key": response[2] if response else [],
        "amplitudes": _amplitudes(run),
        "rows": [
            (_words_of(key), _short(value)) for key, value in details.items() if _is_short(value)
        ],
        "order": sh_order_of(scan.voxels.shape[1]),
        "n_coefficients": scan.voxels.shape[1],
    }


def _words_of(key: str) -> str:
    """Write a key of a record for people, with its unit."""
    for suffix, unit in (("_s_mm2", "s/mm²"), ("_mm2_s", "mm²/s"), ("_mm", "mm")):
        if key.endswith(suffix):
            return f"{key.removesuffix(suffix).replace('_', ' ')} ({unit})"
    return key.replace("sh_", "spherical-harmonic ").replace("_", " ")


def _is_short(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, str) or real(item) is not None for item in items)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return value if isinstance(value, str) else number(real(value) or 0)


def _glyphs(run: Run) -> Iterator[tuple[str, Markup]]:
    """Draw the part of each plane that has the most white matter."""
    scan, where = run.fod, run.white_matter
    if scan is None or where is None:
        return
    fa = run.fa.data if run.fa is not None else np.zeros(scan.grid.shape, np.float32)
    windows = {}
    for axis in _PLANES:
        others = tuple(a for a in range(3) if a != axis)
        place = int(np.argmax(where.sum(axis=others)))
        shown = maps.plane(where, axis, place).astype(np.float32)
        window = _fullest(shown)
        slices = np.moveaxis(scan.planes[axis], 2, 0)
        rows = np.stack([maps.plane(np.expand_dims(s, axis), axis, 0) for s in slices], axis=-1)
        windows[axis] = (rows[window], maps.plane(fa, axis, place)[window])
    everything = [c.reshape(-1, c.shape[-1]) for c, _ in windows.values()]
    scale = glyphs.scale_of(np.concatenate(everything))
    for axis, (coefficients, background) in windows.items():
        words = f"fODF glyphs of {_PLANES[axis]} voxels, over FA"
        image = glyphs.glyphs(coefficients, np.clip(background, 0, 1), axis, scale, _GLYPH_PIXELS)
        picture = run.figures.picture(f"fod{_PLANES[axis]}", image, words)
        yield _PLANES[axis], picture


def _fullest(shown: NDArray[np.floating]) -> tuple[slice, slice]:
    """Return the window with the largest sum."""
    size = (min(_GLYPH_ROWS, shown.shape[0]), min(_GLYPH_COLUMNS, shown.shape[1]))
    sums = ndimage.uniform_filter(shown, size, mode="constant")
    middle = np.unravel_index(int(np.argmax(sums)), sums.shape)
    begins = [
        int(np.clip(m - n // 2, 0, total - n))
        for m, n, total in zip(middle, size, shown.shape, strict=True)
    ]
    return slice(begins[0], begins[0] + size[0]), slice(begins[1], begins[1] + size[1])


def _response(details: dict[str, Any]) -> tuple[Markup, str, list[tuple[int, str]]] | None:
    """Draw the signal of a single fibre by the angle to it; return chart, words and key."""
    angles = np.linspace(0, 2 * np.pi, 181)
    directions = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=1)
    response, responses = details.get("response"), details.get("responses")
    lines: list[tuple[str, NDArray[np.float64]]] = []
    eigenvalues = response.get("eigenvalues_mm2_s") if isinstance(response, dict) else None
    eigenvalues = eigenvalues or details.get("wm_eigenvalues_mm2_s")
    shell = details.get("shell_s_mm2")
    shells = details.get("shells_s_mm2") if shell is None else [shell]
    words = ""
    numbers = [real(value) for value in eigenvalues] if isinstance(eigenvalues, list) else []
    shells = [b for b in map(real, shells) if b is not None] if isinstance(shells, list) else []
    if len(numbers) == 3 and None not in numbers and shells:
        axial, *others = (value or 0 for value in numbers)
        radial = sum(others) / 2
        for b in shells:
            decay = radial + (axial - radial) * directions[:, 2] ** 2
            lines.append((f"b = {b:.0f} s/mm²", np.exp(-b * decay)))
        words = (
            f"Axial diffusivity {1e3 * axial:.3g} × 10⁻³ mm²/s, radial {1e3 * radial:.3g} × 10⁻³ "
            f"mm²/s, ratio {axial / (radial or 1):.3g}."
        )
    elif isinstance(responses, dict) and isinstance(responses.get("wm"), list):
        rows = np.asarray(responses["wm"], float)
        zonal = np.cumsum([0, *(2 * n + 1 for n in range(0, 2 * rows.shape[1], 2))])[:-1]
        basis = sh_basis(2 * (rows.shape[1] - 1), directions)
        middles = [
            start + n for start, n in zip(zonal, range(0, 2 * rows.shape[1], 2), strict=True)
        ]
        labels = ["b = 0", *(f"b = {b:.0f} s/mm²" for b in shells)]
        for label, row in zip(labels, rows, strict=False):
            lines.append((label, basis[:, middles] @ row))
        words = "The response of white matter to each shell."
    if not lines:
        return None
    extent = max(float(values.max()) for _, values in lines) or 1.0
    drawn = [
        (values * directions[:, 0], values * directions[:, 2], kind)
        for kind, (_, values) in enumerate(lines)
    ]
    alt = f"Signal of a single fibre, which runs up and down, by direction. {words}"
    key = [(kind, label) for kind, (label, _) in enumerate(lines)]
    return charts.curves(drawn, alt, extent), words, key


def _amplitudes(run: Run) -> dict[str, Any] | None:
    """Draw how large amplitudes are, compared with the largest of their voxel."""
    scan, record = run.fod, run.data.tracked
    if scan is None:
        return None
    basis = axes_basis(sh_order_of(scan.voxels.shape[1]))
    values = np.einsum("nc,vc->nv", scan.voxels, basis)
    largest = values.max(axis=1, keepdims=True)
    some = largest[:, 0] > 0
    if not some.any():
        return None
    shares = (values[some] / largest[some]).ravel()
    edges = np.linspace(-0.3, 1, 53)
    counts = np.histogram(np.clip(shares, edges[0], edges[-1]), edges)[0]
    lines, threshold, words = [], None, ""
    if record is not None:
        algorithm = record.config.tracking.algorithm
        threshold = getattr(algorithm, "pmf_threshold", None)
        if threshold is not None:
            below = float((shares < threshold).mean())
            lines.append(charts.Line(threshold, f"threshold {threshold:g}"))
            words = f"{100 * below:.0f} % lie below the threshold and count as zero."
    drawn = charts.histogram(
        counts,
        edges,
        "amplitude / largest amplitude of the voxel",
        f"Histogram of the amplitudes of {int(some.sum()):,} fODFs. {words}",
        lines,
        muted_below=threshold if threshold is not None else -np.inf,
        power=0.5,
    )
    return {
        "chart": run.figures.chart("amplitudes", drawn),
        "n_voxels": int(some.sum()),
        "n_axes": len(AXES),
        "words": words,
    }


def maps_and_masks(run: Run) -> dict[str, Any] | None:
    """Return FA with the outlines of masks, coloured directions, and tissue over b=0."""
    fa = run.fa
    if fa is None:
        return None
    where = run.brain.data > 0 if run.brain is not None else fa.data > 0
    edge = fa.grid.voxel_size_mm
    shown = np.clip(np.where(where, fa.data, 0), 0, 1)
    stop = run.read("mask", desc="stop")
    outlines = [("brain mask", BLUE, run.brain), ("seed mask", GOLD, run.seed_mask)]
    if run.data.find("probseg", desc="pftinclude") is None:  # else the tissue shows it better
        outlines.insert(1, ("tracking continues inside", PINK, stop))
    found = [
        (name, colour, image.data > 0) for name, colour, image in outlines if image is not None
    ]
    found = _merged(found)
    drawn = maps.mosaic(shown, where, edge, [maps.Contour(m, colour) for _, colour, m in found])
    key = [(name, _hex(colour), int(mask.sum())) for name, colour, mask in found]
    words = f"Slices of FA with the outlines of: {', '.join(name for name, *_ in key)}"
    context: dict[str, Any] = {
        "fa": run.figures.picture("fa", drawn, words),
        "key": key,
        "voxel_ml": float(np.prod(edge)) / 1000,
        "direction": "",
        "tissue": "",
    }
    if run.direction is not None:
        coloured = (run.direction[0] * shown[..., None]) ** 0.8 * 1.2
        alt = f"Slices of FA, coloured by the {run.direction[1]}"
        context["direction"] = run.figures.picture("color", maps.mosaic(coloured, where, edge), alt)
        context["direction_words"] = run.direction[1]
    tissue = _tissue(run)
    if tissue is not None:
        background, words = _background(run, shown)
        contours = [maps.Contour(tissue["wm"] > 0.5, GOLD), maps.Contour(tissue["csf"] > 0.5, BLUE)]
        contours.insert(0, maps.Contour(tissue["gm"] > 0.5, PINK))
        drawn = maps.mosaic(background, where, edge, contours)
        alt = f"Slices of {words} with the outlines of white matter, grey matter and CSF"
        context["tissue"] = run.figures.picture("tissue", drawn, alt)
        context["tissue_background"] = words
        context["tissue_key"] = [
            (name, _hex(colour), float(tissue[role].sum()) * context["voxel_ml"])
            for name, colour, role in (
                ("white matter", GOLD, "wm"),
                ("grey matter", PINK, "gm"),
                ("cerebrospinal fluid", BLUE, "csf"),
            )
        ]
    return context


def _merged(masks: list[tuple[str, Any, NDArray[np.bool_]]]) -> list[Any]:
    """Outline masks that are equal once, as the last of them would hide the others."""
    merged: list[tuple[str, Any, NDArray[np.bool_]]] = []
    for name, colour, mask in masks:
        same = next((k for k, other in enumerate(merged) if (other[2] == mask).all()), None)
        if same is None:
            merged.append((name, colour, mask))
        else:
            merged[same] = (f"{name}, {merged[same][0]}", colour, mask)
    return merged


def _background(run: Run, fa: NDArray[np.floating]) -> tuple[NDArray[np.floating], str]:
    b0 = run.b0
    if b0 is None or b0[0].data.shape != fa.shape:
        return fa, "FA (the source dataset is not at hand)"
    image, place = b0
    bright = np.percentile(image.data[image.data > 0], 99) if (image.data > 0).any() else 1
    return 0.75 * image.data / bright, f"volume {place + 1} of the DWI (b=0)"


def _hex(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in colour)
