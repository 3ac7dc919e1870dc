"""Examples of the configuration, for its page: by task, and one for each section."""

from __future__ import annotations

from collections.abc import Mapping

BY_TASK: Mapping[str, str] = {
    "Track deterministically, in smaller steps": """\
tracking:
  algorithm: {kind: det, step_size_mm: 0.25}
""",
    "Select ten million streamlines, the same ones at every call": """\
seeding:
  seeds: {kind: select, count: 10M}
  rng_seed: 42
""",
    "Multi-tissue CSD with ACT, seeded at the interface": """\
model: msmt_csd
seeding: {mask: interface}
stopping: act
""",
    "Particle filtering with a T1-weighted image": """\
tissue: t1w
seeding: {mask: interface}
stopping: cmc
tracking: {algorithm: pft}
""",
    "Keep streamlines through a region, and not through another": """\
tracking:
  include: [{kind: roi, files: [/rois/cst_left.nii.gz]}]
  exclude: [{kind: tissue, tissue: csf, above: 0.9}]
""",
    "Write TRX and TCK": """\
output: {formats: [trx, tck]}
""",
    "Correct a gradient table": """\
gradients: {permute: [-x, y, z]}
""",
    "Track a phantom, an infant or an animal": """\
checks: {subject: animal}
""",
}
"""Configurations by what they are for."""

EXAMPLES: Mapping[str, str] = {
    "(top)": "model: csd\nseeding: {rng_seed: 42}\n",
    "Gradients": "gradients: {frame: fsl, check: warn}\n",
    "Checks": "checks: {plausibility: warn, subject: infant}\n",
    "TensorMaps": "tensor: {max_b_s_mm2: 1200, v1: true}\n",
    "AutoTissue": "tissue: auto\nstopping: act\n",
    "ProbsegTissue": "tissue: {kind: probseg, space: any}\nstopping: act\n",
    "DsegTissue": "tissue: {kind: dseg, segmentation: {filters: {desc: aseg}}}\nstopping: act\n",
    "File": "seeding:\n  mask: {kind: file, filters: {suffix: mask, desc: wm}, scope: lab}\n",
    "FiveTissueTypes": "tissue: 5tt\nstopping: act\n",
    "FiveTissueFile": "tissue: {kind: 5tt, image: /data/sub-01_5tt.nii.gz}\nstopping: act\n",
    "T1wTissue": "tissue: {kind: t1w, min_overlap: 0.85}\nstopping: act\n",
    "DwiTissue": "model: msmt_csd\ntissue: dwi\nstopping: act\n",
    "GivenTissue": """\
tissue:
  kind: files
  wm: {filters: {suffix: probseg, label: WM}}
  gm: {filters: {suffix: probseg, label: GM}}
  csf: {filters: {suffix: probseg, label: CSF}}
stopping: act
""",
    "CsdModel": "model: {kind: csd, shell_s_mm2: 1000, sh_order: 6}\n",
    "AutoResponse": "model: {kind: csd, response: {kind: auto, voxels: 500}}\n",
    "GivenResponse": """\
model:
  kind: csd
  response: {kind: given, eigenvalues_mm2_s: [1.7e-3, 3e-4, 3e-4], s0: 1000}
""",
    "MsmtCsdModel": "model: {kind: msmt_csd, tissues: wm_gm_csf}\n",
    "AutoResponses": "model: {kind: msmt_csd, response: auto}\n",
    "ResponseFiles": """\
model:
  kind: msmt_csd
  response: {kind: files, wm: /data/wm.txt, gm: /data/gm.txt, csf: /data/csf.txt}
""",
    "ResponseFile": """\
model:
  kind: msmt_csd
  response:
    kind: files
    wm: {filters: {suffix: wm}, scope: responses}
    csf: /data/csf.txt
""",
    "TensorModel": "model: tensor\n",
    "KurtosisModel": "model: {kind: kurtosis, max_b_s_mm2: 2500}\n",
    "CsaModel": "model: {kind: csa, smooth: 0.006}\n",
    "OpdtModel": "model: {kind: opdt, sh_order: 6}\n",
    "GqiModel": "model: {kind: gqi, sampling_length: 1.25}\n",
    "RumbaModel": "model: {kind: rumba, iterations: 400, coils: 4}\n",
    "PrecomputedModel": """\
model:
  kind: precomputed
  filters: {suffix: fod}
  basis: tournier07
""",
    "Seeding": """\
seeding:
  mask: {map: fa, above: 0.2}
  seeds: {kind: random, per_voxel: 2}
  rng_seed: 42
""",
    "FullMask": "seeding: {mask: full}\n",
    "BrainMask": "seeding: {mask: brain}\n",
    "FileMask": "seeding: {mask: {kind: file, path: /data/seeds.nii.gz}}\n",
    "RoiMask": "seeding: {mask: {kind: roi, files: [/rois/left.nii.gz, /rois/right.nii.gz]}}\n",
    "LabelsMask": """\
seeding:
  mask: {kind: labels, filters: {suffix: dseg, desc: aseg}, include: [2, 41]}
""",
    "ThresholdMask": "seeding: {mask: {map: fa, above: 80, percentile: true}}\n",
    "TissueMask": "seeding: {mask: {kind: tissue, tissue: wm, above: 0.5}}\n",
    "InterfaceMask": "seeding: {mask: interface}\nstopping: act\n",
    "AnyMask": """\
seeding:
  mask:
    kind: any
    of: [{map: fa, above: 0.2}, {kind: tissue, tissue: wm}]
""",
    "AllMask": """\
seeding:
  mask:
    kind: all
    of: [{map: fa, above: 0.15}, {map: md, below: 0.0012}]
""",
    "NotMask": """\
seeding:
  mask: {kind: not, of: {kind: labels, filters: {suffix: dseg}, include: [16]}}
""",
    "GridSeeds": "seeding: {seeds: {kind: grid, per_axis: 2}}\n",
    "RandomSeeds": "seeding: {seeds: {kind: random, per_voxel: 5}}\n",
    "TotalSeeds": "seeding: {seeds: {kind: total, count: 1M}}\n",
    "SelectSeeds": "seeding: {seeds: {kind: select, count: 10M}}\n",
    "ConvergeSeeds": "seeding: {seeds: {kind: converge, correlation: 0.97}}\n",
    "GivenSeeds": "seeding: {mask: null, seeds: {kind: given, path: /data/seeds.txt}}\n",
    "FodStop": "stopping: {kind: fod, below: 0.25}\n",
    "ThresholdStop": "stopping: {map: fa, threshold: 0.15}\n",
    "BinaryStop": "stopping: {kind: binary, mask: {kind: tissue, tissue: wm, above: 0.3}}\n",
    "ActStop": "stopping: act\n",
    "CmcStop": "stopping: cmc\n",
    "Tracking": """\
tracking:
  algorithm: det
  max_directions: 3
  min_length_mm: 30
  max_length_mm: 200
""",
    "Probabilistic": "tracking: {algorithm: {kind: prob, max_angle_deg: 20}}\n",
    "Deterministic": "tracking: {algorithm: {kind: det, step_size_mm: 0.25}}\n",
    "ParticleFiltering": """\
stopping: cmc
tracking: {algorithm: {kind: pft, particles: 20, back_mm: 3}}
""",
    "ParallelTransport": "tracking: {algorithm: {kind: ptt, probe_length_mm: 1}}\n",
    "EuDx": "model: tensor\ntracking: {algorithm: {kind: eudx, max_angle_deg: 45}}\n",
    "ClosestPeak": "tracking: {algorithm: closest_peak}\n",
    "ImportTract": "import_tract: {filters: {suffix: tractogram}, scope: lab}\n",
    "Output": "output: {name: det45, formats: [trx, tck], keep: [tractogram, density]}\n",
    "Linearise": "output: {linearise: {max_error_mm: 0.1}}\n",
}
"""An example for each section, by the heading of the section."""
