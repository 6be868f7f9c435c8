#!/bin/sh
# Runs the program on the Node beside it, from wherever this file is linked to.
self=$0
case $self in
*/*) ;;
*) self=$(command -v -- "$self") ;;
esac
while [ -h "$self" ]; do
  link=$(readlink -- "$self")
  case $link in
  /*) self=$link ;;
  *) self=${self%/*}/$link ;;
  esac
done
lib=${self%/*}/lib
# What the caller asks of its own Node (--inspect-brk, --require) must not stop kubectl.
if [ -n "${TKA_NODE_OPTIONS-}" ]; then
  export NODE_OPTIONS="$TKA_NODE_OPTIONS"
else
  unset NODE_OPTIONS
fi
exec "$lib/node" "$lib/kubectl-tka.cjs" --started-as "$0" "$@"
