#!/bin/sh
# Runs own-node.ts with the Node of npm, which may be too old for TypeScript.
set -eu
cd "$(dirname "$0")/.."
script=node_modules/.cache/own-node.mjs
for esbuild in node_modules/@esbuild/*/bin/esbuild; do
  "$esbuild" krew/own-node.ts --log-level=error --bundle --platform=node --format=esm \
    --define:import.meta.dirname="\"$PWD/krew\"" --outfile="$script"
done
exec "${npm_node_execpath:-node}" "$script"
