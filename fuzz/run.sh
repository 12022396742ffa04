#!/usr/bin/env bash
# Runs fuzz targets one after the other, on one core and at low priority: fuzz/run.sh SECONDS [TARGET…] (all without a name).
# Each starts from the corpus, and what it finds beyond it is kept, minimized. A crash stays in fuzz/artifacts and ends the run.
# Needs cargo-fuzz (cargo install cargo-fuzz) and a C++ compiler; no nightly toolchain.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET…]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(basename -s .rs -a fuzz_targets/*.rs)

# The sanitizer's flags are unstable; this lets a stable compiler take them, for the fuzz targets alone.
export RUSTC_BOOTSTRAP=1
flags=(--release --sanitizer address)
cargo fuzz build "${flags[@]}" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo run --quiet --release --bin corpus -- unpack "$work/all"

printf '%-16s %12s %8s %8s %8s %8s %9s %6s\n' target executions exec/s cov.start cov.end features corpus MiB
for target in "${targets[@]}"; do
  mkdir -p "$work/all/$target"
  log="$work/$target.log"
  nice -n 19 cargo fuzz run "${flags[@]}" "$target" "$work/all/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=60 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1 ||
    { tail -n 40 "$log" >&2; echo "$target: failed; see fuzz/artifacts/$target" >&2; exit 1; }
  cov() { sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\).*/\1 \2/p' "$log"; }
  stat() { sed -n "s/^stat::$1: *//p" "$log"; }
  read -r start _ < <(sed -n 's/.*INITED cov: \([0-9]*\) .*/\1/p' "$log")
  read -r end features < <(cov | tail -n 1)
  # Few and short: what adds to the coverage.
  cargo fuzz cmin "${flags[@]}" "$target" "$work/all/$target" >/dev/null 2>&1
  printf '%-16s %12s %8s %8s %8s %8s %9s %6s\n' "$target" "$(stat number_of_executed_units)" \
    "$(stat average_exec_per_sec)" "$start" "$end" "$features" "$(find "$work/all/$target" -type f | wc -l)" "$(stat peak_rss_mb)"
done
cargo run --quiet --release --bin corpus -- pack "$work/all"
echo "fuzz/corpus is as it was and what was found; run the test the_corpus_holds… once with TIDEGATE_ADD_SEEDS=1, then commit it"
