"""Translation of configurations in pyAFQ's terms.

pyAFQ has other names, units and defaults. The keys show whether a file is for pyAFQ 1 and 2 or for
pyAFQ 3; keys that it omits get the defaults of that version rather than ours. A key without a
counterpart is an error if it could change the tractogram, and otherwise a note.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from bids_tractography.errors import ConfigError
from bids_tractography.pyafq.images import (
    INTERFACE,
    SCALARS,
    Definition,
    NoCounterpartError,
    file_of,
    file_of_filters,
    fractions_of,
    is_binary,
    map_of,
    mask_of,
    read_value,
)
from bids_tractography.pyafq.keys import (
    ALIASES,
    FROM_3,
    KEYS_FROM_3,
    KNOWN,
    MODEL_PREFIXES,
    ON_THE_COMMAND_LINE,
    OURS,
    SECTIONS,
    SPHERES,
    TRANSLATED,
    UNRELATED,
    UNTIL_2,
    VALUES_FROM_3,
    WITHOUT_EFFECT,
)

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Translation:
    """A translated pyAFQ configuration.

    Parameters
    ----------
    config : dict
        The equivalent configuration, as in a configuration file.
    notes : list of str
        Differences, omitted keys, and defaults that were filled in.
    """

    config: dict[str, Any]
    notes: list[str]


def is_pyafq(content: Mapping[str, Any]) -> bool:
    """Return whether a configuration is in pyAFQ's terms: it has pyAFQ's keys and none of ours."""
    telling = KNOWN - {"import_tract", "title"}
    return not set(OURS).intersection(content) and bool(telling.intersection(content))


def translate(content: Mapping[str, Any]) -> Translation:
    """Translate a configuration from pyAFQ's terms.

    Parameters
    ----------
    content : mapping
        Content of a pyAFQ TOML file, the arguments of ``GroupAFQ``, or ``tracking_params`` only.
        Image definitions are text, as in TOML.

    Returns
    -------
    Translation

    Raises
    ------
    ConfigError
        If keys that could change the tractogram have no counterpart; the message lists them.

    References
    ----------
    .. [1] Kruper J et al. (2021). Evaluating the reliability of human brain white matter
       tractometry. Aperture Neuro 1. https://doi.org/10.52294/e6198273-b8e3-4b63-babb-6e6b0da10669
    """
    given = _sort(content)
    config: dict[str, Any] = {}
    for section in (_gradients, _tissue, _model, _seeding, _stopping, _tracking, _import, _output):
        config |= section(given)
    _brain_mask(given)
    _note_scopes(given, config)
    given.note_the_rest()
    if given.faults:
        listed = "\n".join(f"  {key}: {text}" for key, text in given.faults.items())
        raise ConfigError(
            f"keys in pyAFQ's terms that have no counterpart:\n{listed}\n",
            "Change or remove them; docs/pyafq.md describes the translation of each key.",
        )
    if "import_tract" in config:
        given.note("import_tract: no tracking is done, so tracking keys are ignored.")
        config = {"import_tract": config["import_tract"]}
    return Translation(config, given.notes)


@dataclass
class _Given:
    """Keys of a pyAFQ configuration, with notes, faults, and the keys that have been read."""

    values: dict[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    from_3: bool = False
    notes: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def has(self, key: str) -> bool:
        """Return whether the key has a value; None and empty text mean none in pyAFQ."""
        return self.values.get(key) is not None

    def take(self, key: str, default: Any = None) -> Any:
        """Read a key; ``default`` is for keys whose default depends on others."""
        self.read.add(key)
        return self.values[key] if self.has(key) else self.defaults.get(key, default)

    def number(self, key: str, default: float | None = None) -> float:
        """Read a number; anything else is a fault."""
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.faults[key] = f"must be a number, not {value!r}."
            return 1
        return value

    def flag(self, key: str) -> bool:
        """Read a boolean; anything else is a fault."""
        value = self.take(key)
        if not isinstance(value, bool):
            self.faults[key] = f"must be true or false, not {value!r}."
        return value is True

    def name(self, key: str) -> str:
        """Read a name, which is case-insensitive in pyAFQ; anything else is a fault."""
        value = self.take(key)
        if not isinstance(value, str):
            self.faults[key] = f"must be a name, not {value!r}."
        return str(value).upper()

    def note(self, text: str) -> None:
        """Add a note, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    def note_the_rest(self) -> None:
        """Add notes about unrelated keys, and faults for other keys that have not been read."""
        rest = [key for key in self.values if key not in self.read]
        for heading, table in (
            ("On the command line here", ON_THE_COMMAND_LINE),
            ("Without effect on the tractogram", WITHOUT_EFFECT),
        ):
            found = [f"{key} ({table[key]})" for key in rest if key in table and self.values[key]]
            if found:
                self.note(f"{heading}: {', '.join(found)}.")
        unrelated = [key for key in rest if key in UNRELATED and key != "title"]
        if unrelated:
            self.note(f"Not related to tractography, ignored: {', '.join(unrelated)}.")
        for key in set(rest) - {*ON_THE_COMMAND_LINE, *WITHOUT_EFFECT, *UNRELATED}:
            close = difflib.get_close_matches(key, KNOWN, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            self.faults.setdefault(key, f"unknown pyAFQ key.{hint}")


def _sort(content: Mapping[str, Any]) -> _Given:
    """Flatten the sections, parse text as pyAFQ does, and detect the version of pyAFQ."""
    given = _Given()
    for name, value in content.items():
        section = _read(given, str(name), value) if name in SECTIONS else None
        if isinstance(section, Mapping):
            for key, inner in section.items():
                # In the section DATA, the sphere is for kurtosis maps.
                if (name, key) != ("DATA", "sphere"):
                    _add(given, str(key), inner)
        else:
            _add(given, str(name), value)
    given.from_3 = any(given.has(key) for key in KEYS_FROM_3) or any(
        str(given.values.get(key)).upper() in values for key, values in VALUES_FROM_3.items()
    )
    given.defaults = FROM_3 if given.from_3 else UNTIL_2
    unsaid = [f"{key} {value}" for key, value in given.defaults.items() if not given.has(key)]
    if unsaid:
        generation = "3" if given.from_3 else "1 and 2"
        given.note(f"Defaults of pyAFQ {generation}: {', '.join(unsaid)}.")
    return given


def _add(given: _Given, key: str, value: Any) -> None:
    key = ALIASES.get(key, key)
    if key in given.values:
        given.faults[key] = "appears twice."
    given.values[key] = None if key in UNRELATED else _read(given, key, value)


def _read(given: _Given, key: str, value: Any) -> Any:
    try:
        return read_value(value)
    except NoCounterpartError as fault:
        given.faults[key] = str(fault)
        return None


def _or_fault(given: _Given, key: str, make: Callable[[], _Made]) -> _Made | None:
    """Return the result of ``make``; if there is no counterpart, add a fault for the key."""
    try:
        return make()
    except NoCounterpartError as fault:
        given.faults.setdefault(key, str(fault))
        return None


# Sections


def _gradients(given: _Given) -> dict[str, Any]:
    for key in ("min_bval", "max_bval"):
        if given.take(key) not in (None, float("inf"), float("-inf")):
            given.faults[key] = (
                "volumes cannot be excluded from all steps; see model.shell_s_mm2 and "
                "tensor.max_b_s_mm2."
            )
    if given.take("robust_tensor_fitting"):
        given.faults["robust_tensor_fitting"] = "tensors are fitted by weighted least squares."
    threshold = given.take("b0_threshold")
    return {} if threshold is None else {"gradients": {"b0_threshold_s_mm2": threshold}}


def _tissue(given: _Given) -> dict[str, Any]:
    for key in ("pve", "stop_mask"):
        image = given.values.get(key)
        if isinstance(image, Definition) and (key == "pve" or image.name in _OF_THREE):
            given.read.add(key)
            return {"tissue": _or_fault(given, key, partial(fractions_of, image))}
    return {}


_OF_THREE = ("PFTImage", "PVEImages")


def _model(given: _Given) -> dict[str, Any]:
    model = given.take("odf_model")
    basis = str(given.take("basis_type", "descoteaux07"))
    basis += "_legacy" if given.take("legacy", default=True) else ""
    if isinstance(model, Definition):
        return _precomputed(given, model, basis)
    name = given.name("odf_model")
    if given.has("basis_type") or given.has("legacy"):
        given.note("basis_type and legacy only apply if odf_model is a file.")
    if name.endswith("_AODF"):
        given.faults["odf_model"] = f"{name} is asymmetric; {_SYMMETRIC[name]} is closest."
    elif name not in _MODELS:
        given.faults["odf_model"] = f"{name} is unknown; available: {', '.join(_MODELS)}."
    elif given.from_3 and not given.has("odf_model"):
        given.note("odf_model: pyAFQ 3 would use CSD_AODF, which is asymmetric.")
    section = _MODELS[name](given) if name in _MODELS else {}
    _note_other_models(given, name)
    return {"model": section}


_SYMMETRIC = {"CSD_AODF": "CSD", "MSMT_AODF": "MSMTCSD"}


def _precomputed(given: _Given, model: Definition, basis: str) -> dict[str, Any]:
    _note_other_models(given, "")
    if model.name != "ImageFile":
        given.faults["odf_model"] = f"{model.name} is not an image of spherical harmonics."
        return {}
    image = _or_fault(given, "odf_model", lambda: file_of(model)) or {}
    return {"model": {"kind": "precomputed", **image, "basis": basis, "axes": "image"}}


def _note_other_models(given: _Given, name: str) -> None:
    others = [prefix for model, prefix in MODEL_PREFIXES.items() if model != name]
    idle = [key for key in given.values if key.startswith(tuple(others)) and key in TRANSLATED]
    given.read |= set(idle)
    if any(given.has(key) for key in idle):
        given.note(f"Settings of other models, ignored: {', '.join(filter(given.has, idle))}.")


def _section(kind: str, **values: Any) -> dict[str, Any]:
    return {"kind": kind, **{key: value for key, value in values.items() if value is not None}}


def _sh_order(given: _Given, model: str) -> Any:
    order = given.take(f"{model}_sh_order")
    return given.take(f"{model}_sh_order_max", order)


def _csd(given: _Given) -> dict[str, Any]:
    if given.take("csd_fa_thr", 0.7) != 0.7:
        given.faults["csd_fa_thr"] = "the response is estimated from the voxels of highest FA."
    response = given.take("csd_response")
    if response is not None:
        try:
            eigenvalues, s0 = response
            response = {"kind": "given", "eigenvalues_mm2_s": list(eigenvalues), "s0": s0}
        except (TypeError, ValueError):
            given.faults["csd_response"] = f"expected ((e1, e2, e3), S0), not {response!r}."
    return _section(
        "csd",
        sh_order=_sh_order(given, "csd"),
        response=response,
        positivity_weight=given.take("csd_lambda_"),
        positivity_threshold=given.take("csd_tau"),
    )


def _kurtosis(given: _Given) -> dict[str, Any]:
    given.note(
        "odf_model DKI: pyAFQ follows the tensor of the kurtosis fit; this app follows its "
        "kurtosis as well (use model.kind tensor to avoid that)."
    )
    return {"kind": "kurtosis"}


def _rumba(given: _Given) -> dict[str, Any]:
    given.read |= {"rumba_gm_response", "rumba_csf_response"}
    return {
        "kind": "rumba",
        "wm_eigenvalues_mm2_s": given.take("rumba_wm_response", [1.7e-3, 2e-4, 2e-4]),
        # None omits the compartment.
        "gm_diffusivity_mm2_s": given.values.get("rumba_gm_response", 8e-4),
        "csf_diffusivity_mm2_s": given.values.get("rumba_csf_response", 3e-3),
        "iterations": given.take("rumba_n_iter", 600),
    }


def _q_ball(given: _Given, kind: str) -> dict[str, Any]:
    given.note(
        f"odf_model {kind.upper()}: fitted once rather than bootstrapped, and followed without "
        "its isotropic part (model.isotropic_part)."
    )
    return _section(kind, sh_order=_sh_order(given, kind) or 8)


def _msmt_csd(given: _Given) -> dict[str, Any]:
    if given.take("msmt_fa_thr", 0.7) != 0.7:
        given.faults["msmt_fa_thr"] = "responses are estimated by Dhollander's method."
    return _section("msmt_csd", sh_order=given.take("msmt_sh_order"))


_MODELS: Mapping[str, Callable[[_Given], dict[str, Any]]] = {
    "CSD": _csd,
    "DTI": lambda _given: {"kind": "tensor"},
    "DKI": _kurtosis,
    "GQ": lambda given: _section("gqi", sampling_length=given.take("gq_sampling_length")),
    "RUMBA": _rumba,
    "OPDT": lambda given: _q_ball(given, "opdt"),
    "CSA": lambda given: _q_ball(given, "csa"),
    "MSMTCSD": _msmt_csd,
}


def _image(given: _Given, key: str) -> Definition | None:
    """Return the image definition of a key, or None."""
    value = given.take(key)
    if value in (*SCALARS, INTERFACE):
        return Definition("ScalarImage", {"scalar": value})
    if value is not None and not isinstance(value, Definition):
        raise NoCounterpartError(f"must be an image definition, not {value!r}.")
    return value


def _best_scalar(given: _Given) -> Definition:
    """Return pyAFQ's default image: the first scalar with FA in its name."""
    scalars = given.take("scalars") or ["dti_fa"]
    if not isinstance(scalars, list | tuple):
        raise NoCounterpartError(f"scalars must be a list, not {scalars!r}.")
    best = next((scalar for scalar in scalars if "fa" in str(scalar)), scalars[0])
    return best if isinstance(best, Definition) else Definition("ScalarImage", {"scalar": best})


def _over_threshold(
    given: _Given, image: Definition | None, which: str, bound: str, default: float
) -> dict[str, Any]:
    """Return a map and its threshold; without an image, those of the best scalar."""
    key = f"{which}_threshold"
    if image is None:
        if given.has(key) and given.take(key) != 0.2:
            given.note(f"{key} has no effect in pyAFQ without {which}_mask: 0.2 is used.")
        value = 0.2
    else:
        value = given.number(key, default)
        if image.name == "ImageFile":
            two = "at 0.5" if which == "stop" else "above 0"
            given.note(
                f"{which}_mask: thresholded at {value:g}; pyAFQ thresholds a binary image {two}, "
                f"regardless of {key}."
            )
    threshold = {"kind": "threshold", "map": map_of(image or _best_scalar(given))}
    if not given.flag("thresholds_as_percentages"):
        return {**threshold, bound: value}
    given.note(f"{which}: the highest {value:g} % are those above percentile {100 - value:g}.")
    return {**threshold, bound: 100 - value, "percentile": True}


def _without_threshold(given: _Given, image: Definition, which: str) -> dict[str, Any]:
    if given.has(f"{which}_threshold"):
        given.note(f"{which}_threshold has no effect on {image.name}.")
    if image.name == "B0Image":
        given.note("B0Image: the dataset's brain mask or, if it has none, one from the DWI.")
    return mask_of(image)


def _seeding(given: _Given) -> dict[str, Any]:
    seeding: dict[str, Any] = {
        "mask": _or_fault(given, "seed_mask", lambda: _seed_mask(given)),
        "seeds": _seeds(given),
    }
    given.read |= {"seed_threshold", "thresholds_as_percentages", "scalars"}
    rng_seed = given.take("rng_seed")
    return {"seeding": seeding if rng_seed is None else {**seeding, "rng_seed": rng_seed}}


def _seed_mask(given: _Given) -> dict[str, Any]:
    image = _image(given, "seed_mask")
    if (image is None and given.from_3) or (image and image["scalar"] == INTERFACE):
        given.note(
            f"seed_mask {INTERFACE}: computed from the tissue fractions ({{kind: interface}})."
        )
        return {"kind": "interface"}
    if image and is_binary(image):
        return _without_threshold(given, image, "seed")
    return _over_threshold(given, image, "seed", "above", 0.5 if given.from_3 else 0)


def _seeds(given: _Given) -> dict[str, Any]:
    random = given.flag("random_seeds")
    if isinstance(given.take("n_seeds"), list | tuple):
        given.faults["n_seeds"] = (
            "write the coordinates to a file and set seeding.seeds: {kind: given, path: FILE}."
        )
        return {}
    count = given.number("n_seeds")
    if count != int(count):
        given.faults["n_seeds"] = f"must be a whole number, not {count}."
    if random:
        return {"kind": "total", "count": int(count)}
    return {"kind": "grid", "per_axis": int(count)}


def _stopping(given: _Given) -> dict[str, Any]:
    given.read |= {"stop_mask", "stop_threshold", "gm_threshold"}
    stop = _stop_of_3 if given.from_3 and not given.has("stop_mask") else _stop_until_2
    return {"stopping": _or_fault(given, "stop_mask", lambda: stop(given))}


def _stop_until_2(given: _Given) -> dict[str, Any]:
    mask, threshold = given.values.get("stop_mask"), given.values.get("stop_threshold")
    rule = mask if mask in ("ACT", "CMC") else threshold
    image = None if mask in ("ACT", "CMC") else _image(given, "stop_mask")
    if isinstance(rule, str):
        return _anatomical_stop(given, rule.upper(), image)
    if given.name("tracker") == "PFT":
        raise NoCounterpartError("tracker pft requires stop_threshold CMC or ACT.")
    if image and is_binary(image):
        return {"kind": "binary", "mask": _without_threshold(given, image, "stop")}
    return _over_threshold(given, image, "stop", "threshold", 0)


def _anatomical_stop(given: _Given, rule: str, image: Definition | None) -> dict[str, Any]:
    if rule not in ("ACT", "CMC"):
        raise NoCounterpartError(f"stop_threshold must be a number, CMC or ACT, not {rule}.")
    if image is None:
        given.note(f"stop_threshold {rule} without PFTImage: fractions are found (tissue: auto).")
    elif image.name not in _OF_THREE:
        raise NoCounterpartError(f"stop_threshold {rule} requires PFTImage, not {image.name}.")
    return {"kind": rule.lower()}


def _stop_of_3(given: _Given) -> dict[str, Any]:
    limit = given.number("gm_threshold", 0.4)
    if given.name("directions") in ("PROB", "PTT"):
        return {"kind": "binary", "mask": {"kind": "tissue", "tissue": "wm", "above": limit}}
    if limit != 0.5:
        text = f"streamlines end where grey matter exceeds 0.5, but in pyAFQ above {limit:g}."
        if given.has("gm_threshold"):
            given.faults["gm_threshold"] = text
        else:
            given.note(f"gm_threshold: {text}")
    return {"kind": "act"}


def _tracking(given: _Given) -> dict[str, Any]:
    algorithm = {
        "kind": _algorithm(given),
        "step_size_mm": given.number("step_size"),
        "max_angle_deg": given.number("max_angle"),
        "pmf_threshold": 0.1,  # DIPY's default, which pyAFQ does not change
    }
    tracking = {"algorithm": algorithm, "max_directions": 10, **_lengths(given)}
    given.note("pyAFQ starts a streamline along every peak at a seed: max_directions 10.")
    if given.from_3 and given.name("directions") in ("PROB", "PTT"):
        tracking["dead_ends"] = "keep"
    if given.take("sphere") not in SPHERES:
        given.faults["sphere"] = "directions are those of repulsion724."
    if given.values.get("tractography_ngpus"):
        given.note("On a GPU, pyAFQ 1 and 2 take step_size as voxels; here it is in mm.")
    return {"tracking": tracking}


def _algorithm(given: _Given) -> str:
    directions, tracker = given.name("directions"), given.name("tracker")
    if tracker not in ("LOCAL", "PFT"):
        given.faults["tracker"] = f"must be local or pft, not {tracker.lower()}."
    if directions not in ("PROB", "DET", "PTT", "PFT"):
        given.faults["directions"] = f"must be prob, det, ptt or pft, not {directions.lower()}."
    elif tracker == "PFT" and directions not in ("PROB", "PFT"):
        given.faults["directions"] = f"pft is only probabilistic here, not {directions.lower()}."
    return "pft" if tracker == "PFT" else directions.lower()


def _lengths(given: _Given) -> dict[str, float]:
    """Convert bounds to lengths: pyAFQ compares mm / step with the number of points, steps + 1."""
    step = given.number("step_size")
    bounds = {"min_length_mm": given.number("minlen"), "max_length_mm": given.number("maxlen")}
    if step <= 0:
        return bounds
    lengths = {
        ours: max(0.0, round((int(bound / step) - 1) * step, 6)) for ours, bound in bounds.items()
    }
    given.note(
        f"minlen and maxlen: pyAFQ counts points, one more than steps; it accepts streamlines of "
        f"{lengths['min_length_mm']:g} to {lengths['max_length_mm']:g} mm."
    )
    return lengths


def _note_scopes(given: _Given, section: Any) -> None:
    """Add a note about each dataset that the files of a section require."""
    if isinstance(section, Mapping):
        scope = section.get("scope")
        if isinstance(scope, str) and scope != "raw":
            given.note(f"scope {scope}: name the dataset with --derivatives {scope}=PATH.")
        for value in section.values():
            _note_scopes(given, value)
    elif isinstance(section, list):
        for value in section:
            _note_scopes(given, value)


def _import(given: _Given) -> dict[str, Any]:
    source = given.take("import_tract")
    if source is None:
        return {}
    if isinstance(source, str):
        return {"import_tract": {"path": source}}
    if not isinstance(source, Mapping):
        given.faults["import_tract"] = f"must be a path or filters, not {source!r}."
        return {}
    given.note("import_tract: exactly one file must match; pyAFQ takes the first of several.")
    return {"import_tract": file_of_filters(source)}


def _output(given: _Given) -> dict[str, Any]:
    return {"output": {"formats": ["trx" if given.flag("trx") else "trk"]}}


def _brain_mask(given: _Given) -> None:
    mask = given.take("brain_mask_definition")
    if isinstance(mask, Definition) and mask.name == "B0Image":
        _or_fault(given, "brain_mask_definition", lambda: _without_threshold(given, mask, "brain"))
    elif mask is not None:
        given.faults["brain_mask_definition"] = (
            "select the brain mask of each participant with --bids-filter-file (query brain_mask)."
        )
