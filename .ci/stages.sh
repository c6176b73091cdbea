# Sourced by the gates: `stage NAME COMMAND...` runs a command, times it, and ends the gate at the first failure.
# A stage is never skipped: what cannot run fails. At the end, or at the failure, the times are printed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_PROGRESS_WHEN=never

stage_times=()
stage_now=""
stage_began=0

stage() {
  stage_now="$1"
  stage_began=$SECONDS
  shift
  printf '\n== %s: %s\n' "$stage_now" "$*"
  "$@"
  stage_times+=("$(printf '%6d s  %s' $((SECONDS - stage_began)) "$stage_now")")
  stage_now=""
}

stage_report() {
  local code=$?
  printf '\n'
  [ ${#stage_times[@]} -eq 0 ] || printf '%s\n' "${stage_times[@]}"
  if [ "$code" -ne 0 ]; then
    printf '%6d s  %s  FAILED (exit %d)\n' $((SECONDS - stage_began)) "${stage_now:-before the first stage}" "$code"
  fi
  printf '%6d s  in all: %s\n' "$SECONDS" "$([ "$code" -eq 0 ] && echo passed || echo FAILED)"
}
trap stage_report EXIT
