#!/bin/sh
# kubectl-tka: kubectl runs this for `kubectl tka <TAB>`, with the words so far.
# The program stands beside this file, or on PATH where this file was linked to from elsewhere.
program=${0%/*}/kubectl-tka
[ -x "$program" ] || program=$(command -v kubectl-tka) || exit 0
exec "$program" __complete "$@"
