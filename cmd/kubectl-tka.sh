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
exec "$lib/node" "$lib/kubectl-tka.cjs" --started-as "$0" "$@"
