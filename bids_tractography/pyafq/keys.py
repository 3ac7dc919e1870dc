"""pyAFQ's keys: their translation, and their defaults in pyAFQ 1 and 2 and in pyAFQ 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Translation of each key; docs/pyafq.md is generated from these tables.
TRANSLATED: Mapping[str, str] = {
    "directions": "`tracking.algorithm.kind`: prob, det, ptt, pft",
    "tracker": "`tracking.algorithm.kind`: pft, or as in `directions`",
    "max_angle": "`tracking.algorithm.max_angle_deg`",
    "step_size": "`tracking.algorithm.step_size_mm`",
    "minlen": "`tracking.min_length_mm`, reduced by one step: pyAFQ counts points, not steps",
    "maxlen": "`tracking.max_length_mm`, reduced by one step",
    "sphere": "nothing: must be repulsion724",
    "n_seeds": "`seeding.seeds`: count of `total`, or per_axis of `grid`; coordinates are an error",
    "random_seeds": "`seeding.seeds.kind`: true `total`, false `grid`",
    "rng_seed": "`seeding.rng_seed`",
    "seed_mask": "`seeding.mask`",
    "seed_threshold": "`seeding.mask.above`",
    "stop_mask": "`stopping`; a PFTImage `tissue`",
    "stop_threshold": "`stopping.threshold`; CMC and ACT `stopping.kind`",
    "gm_threshold": "white matter in `stopping` for prob and ptt; must be 0.5 for det and pft",
    "thresholds_as_percentages": "`percentile`: the highest p % are above percentile 100 - p",
    "pve": "`tissue`",
    "odf_model": "`model.kind`; a file is `precomputed`",
    "basis_type": "`model.basis` of `precomputed`",
    "legacy": "`model.basis` of `precomputed`",
    "csd_response": "`model.response`",
    "csd_sh_order": "`model.sh_order`",
    "csd_sh_order_max": "`model.sh_order`",
    "csd_lambda_": "`model.positivity_weight`",
    "csd_tau": "`model.positivity_threshold`",
    "csd_fa_thr": "nothing: must be 0.7, its default",
    "gq_sampling_length": "`model.sampling_length`",
    "rumba_wm_response": "`model.wm_eigenvalues_mm2_s`",
    "rumba_gm_response": "`model.gm_diffusivity_mm2_s`",
    "rumba_csf_response": "`model.csf_diffusivity_mm2_s`",
    "rumba_n_iter": "`model.iterations`",
    "opdt_sh_order": "`model.sh_order`",
    "opdt_sh_order_max": "`model.sh_order`",
    "csa_sh_order": "`model.sh_order`",
    "csa_sh_order_max": "`model.sh_order`",
    "msmt_sh_order": "`model.sh_order`",
    "msmt_fa_thr": "nothing: must be 0.7, its default",
    "b0_threshold": "`gradients.b0_threshold_s_mm2`",
    "min_bval": "an error (see `model.shell_s_mm2`)",
    "max_bval": "an error (see `model.shell_s_mm2`, `tensor.max_b_s_mm2`)",
    "robust_tensor_fitting": "nothing: must be false",
    "brain_mask_definition": "nothing: select a mask with `--bids-filter-file` (query brain_mask)",
    "scalars": "the map of `seeding.mask` and `stopping` if they do not set one",
    "import_tract": "`import_tract`",
    "trx": "`output.formats`: true trx, false trk",
}
ON_THE_COMMAND_LINE: Mapping[str, str] = {
    "bids_path": "BIDS_DIR",
    "output_dir": "OUTPUT_DIR",
    "participant_labels": "--participant-label",
    "preproc_pipeline": "--derivatives",
    "bids_filters": "--bids-filter-file",
    "bids_layout_kwargs": "--bids-database-dir",
}
WITHOUT_EFFECT: Mapping[str, str] = {
    "parallel_params": "--nprocs",
    "num_chunks": "--omp-nthreads",
    "n_threads": "--omp-nthreads",
    "numba_n_threads": "--omp-nthreads",
    "ray_n_cpus": "--omp-nthreads",
    "chunk_size": "tracking.batch_size",
    "jit_chunk_size": "tracking.batch_size",
    "jit_backend": "tracking.engine",
    "tractography_ngpus": "tracking.engine",
}
TRACKING_SECTIONS = ("TRACTOGRAPHY_PARAMS", "tracking_params")
SECTIONS = (*TRACKING_SECTIONS, "BIDS_PARAMS", "files", "DATA", "TRACTOGRAPHY", "SEGMENTATION")
# Keys of the steps before and after tractography.
UNRELATED: tuple[str, ...] = (
    *("title", "SEGMENTATION_PARAMS", "segmentation_params", "CLEANING_PARAMS", "clean_params"),
    *("MAPPING", "mapping_definition", "reg_subject_spec", "reg_template_spec"),
    *("reg_template_space_name", "bundle_info", "profile_weights", "n_points_profile"),
    *("endpoint_threshold", "VIZ", "viz_backend_spec", "virtual_frame_buffer", "gtol", "filter_b"),
    *("sbv_lims_bundles", "volume_opacity_bundles", "n_points_bundles"),
    *("sbv_lims_indiv", "volume_opacity_indiv", "n_points_indiv"),
)
ALIASES = {"min_length": "minlen", "max_length": "maxlen"}
KNOWN = {*TRANSLATED, *ON_THE_COMMAND_LINE, *WITHOUT_EFFECT, *UNRELATED, *SECTIONS, *ALIASES}
OURS = ("gradients", "tensor", "tissue", "model", "seeding", "stopping", "tracking", "output")

UNTIL_2: Mapping[str, Any] = {
    "directions": "prob",
    "tracker": "local",
    "odf_model": "CSD",
    "max_angle": 30,
    "step_size": 0.5,
    "minlen": 50,
    "maxlen": 250,
    "n_seeds": 1,
    "random_seeds": False,
    "thresholds_as_percentages": False,
    "trx": False,
}
FROM_3: Mapping[str, Any] = {
    **UNTIL_2,
    "minlen": 20,
    "maxlen": 500,
    "n_seeds": 10_000_000,
    "random_seeds": True,
    "trx": True,
}
KEYS_FROM_3 = ("gm_threshold", "jit_backend", "jit_chunk_size", "n_threads", "pve")
VALUES_FROM_3 = {
    "directions": ("PFT", "PTT"),
    "odf_model": ("CSD_AODF", "MSMT_AODF", "MSMTCSD"),
}
MODEL_PREFIXES = {"CSD": "csd_", "GQ": "gq_", "RUMBA": "rumba_", "OPDT": "opdt_", "CSA": "csa_"}
MODEL_PREFIXES |= {"MSMTCSD": "msmt_"}
SPHERES = (None, "repulsion724", "default_sphere")
