#!/bin/bash
#SBATCH --job-name=tractography
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --output=logs/%x-%A_%a.out
# One participant per task, all into one output folder; then the group level:
#
#   export BIDS_DIR=/data/study OUTPUT_DIR=/data/study/derivatives/bids_tractography
#   jobs=$(sbatch --parsable --array=1-$(docs/clusters/slurm-array.sh count)%50 \
#       docs/clusters/slurm-array.sh)
#   sbatch --dependency=afterany:$jobs docs/clusters/slurm-array.sh group
#
# Set OPTIONS for other options of the program, and BINDS for further datasets and files that they
# name, which the container sees under the same paths:
#
#   export BINDS=/data/qsiprep OPTIONS="-d /data/qsiprep --config act_msmt"
#
# Participants without a DWI in BIDS_DIR get no task.
set -euo pipefail
: "${BIDS_DIR:?the dataset}" "${OUTPUT_DIR:?the derivative dataset to write}"
IMAGE=${IMAGE:-bids-tractography.sif}
read -ra options <<<"${OPTIONS:-}"
read -ra binds <<<"${BINDS:-}"
shopt -s nullglob
participants=()
for folder in "$BIDS_DIR"/sub-*/; do
    images=("$folder"dwi/*_dwi.nii* "$folder"ses-*/dwi/*_dwi.nii*)
    if ((${#images[@]})); then participants+=("$folder"); fi
done

case ${1:-participant} in
    count)
        echo "${#participants[@]}"
        exit
        ;;
    group) words=(group) ;;
    participant)
        task=${SLURM_ARRAY_TASK_ID:?this is for sbatch --array}
        if ((task < 1 || task > ${#participants[@]})); then
            echo "no participant $task: $BIDS_DIR has ${#participants[@]}" >&2
            exit 64
        fi
        # Unfinished work is in a scratch folder, which is removed when the task ends.
        scratch=$(mktemp -d "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/tractography-XXXXXX")
        trap 'rm -rf "$scratch"' EXIT
        words=(participant --participant-label "$(basename "${participants[task - 1]}")"
            --work-dir /work --nprocs "${SLURM_CPUS_PER_TASK:-1}" "${options[@]}")
        ;;
    *)
        echo "usage: $0 [count | participant | group]" >&2
        exit 64
        ;;
esac

mkdir -p "$OUTPUT_DIR"
if [ -n "${DRY_RUN:-}" ]; then
    echo "bids-tractography $BIDS_DIR $OUTPUT_DIR ${words[*]}"
    exit
fi
mounts="$BIDS_DIR:/data:ro,$OUTPUT_DIR:/out,${scratch:-/tmp}:/work"
for path in "${binds[@]}"; do mounts+=",$path:$path:ro"; done
apptainer run --cleanenv --containall --no-home \
    -B "$mounts" \
    "$IMAGE" /data /out "${words[@]}"
