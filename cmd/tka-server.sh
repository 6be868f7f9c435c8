#!/bin/sh
# Starts the TKA server, in this process's place, so that signals reach it.
self=$0
while [ -h "$self" ]; do
  link=$(readlink -- "$self") || exit 1
  case $link in
  /*) self=$link ;;
  *) self=${self%/*}/$link ;;
  esac
done
case $self in
*/*) exec "${self%/*}/lib/node" "${self%/*}/lib/tka-server.cjs" "$@" ;;
*) exec ./lib/node ./lib/tka-server.cjs "$@" ;;
esac
