#!/usr/bin/env bash
# From a fresh clone to a verdict: make test. Each layer is a make target of its own; all of them run even after one
# has failed, so that one run tells everything, and the last lines say what passed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

failed=0
summary=()
reasons=()
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# Where nobody watches, pytest takes the width for 80 columns and cuts the reasons off.
[[ -t 1 ]] || export COLUMNS=${COLUMNS:-200}
layer() {
    local name=$1 started=$SECONDS verdict=passed
    printf '\n######## make %s\n' "$name"
    if ! make --no-print-directory "$name" 2>&1 | tee "$said"; then
        verdict=FAILED failed=$((failed + 1))
        reasons+=("$(printf '== why %s failed:' "$name")" "$(why)")
    fi
    summary+=("$(printf '%-10s %-7s %4d s' "$name" "$verdict" $((SECONDS - started)))")
}

# The tests that failed, or what was said last: often the end of a log is all that is kept of it.
why() {
    grep --extended-regexp '^(FAILED|ERROR|fatal:) ?' "$said" | cut --characters=1-400 | head -n 12 | grep . || tail -n 8 "$said"
}

# First the virtual environment: on a minimal Debian it brings the Python that the next step is written in.
make --no-print-directory venv || exit 1
tools/check_machine.py test || exit 1
make --no-print-directory machine || exit 1
layers=(lint unit app molecule containers)
# Without an archive there is no Grafana to test, and the last lines say so.
without_grafana=$(molecule/grafana/run.sh --left-out)
[[ -n $without_grafana ]] || layers+=(grafana)
for name in "${layers[@]}"; do layer "$name"; done

printf '\n######## make test\n'
printf '%s\n' "${summary[@]}"
molecule/containers/run.sh --left-out
printf '%s' "${without_grafana:+$without_grafana$'\n'}"
printf 'NOT PART OF THIS: make faults, make mutants, make bench: longer proofs of their own.\n'
[[ $failed -eq 0 ]] || printf '%s\n' "${reasons[@]}"
printf '%d passed, %d failed\n' $((${#layers[@]} - failed)) "$failed"
[[ $failed -eq 0 ]]
