#!/usr/bin/env bash
# Peak memory of the whole job against the number of seeds, on one participant of a dataset.
#
#     benchmarks/memory_beside_seeds.sh BIDS_DIR LABEL [SEEDS ...]      (default 100000)
#
# OPTIONS in the environment goes to the command, e.g. OPTIONS="--set tracking.max_length_mm=60".
set -euo pipefail
bids=$1 label=$2
shift 2
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
for seeds in "${@:-100000}"; do
    /usr/bin/time -f "$seeds seeds: %M KiB peak, %e s wall, %U s user" \
        bids-tractography "$bids" "$output/$seeds" participant --participant-label "$label" \
        --set "seeding.seeds={kind: total, count: $seeds}" --set seeding.rng_seed=1 ${OPTIONS:-} \
        >"$output/log" 2>"$output/errors" || { cat "$output/errors" >&2; exit 1; }
    tail -n 1 "$output/errors"
    rm -rf "${output:?}/$seeds"
done
