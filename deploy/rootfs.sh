#!/bin/sh
# rootfs.sh DIST ROOT [SYSTEM]: copies the built server and its dependencies into the empty folder ROOT. SYSTEM is the root of a Debian
# system of the image's architecture that has the libraries (default: /). If SYSTEM has a dpkg database, ROOT gets a list of the
# packages that its files are from, where scanners look for it.
set -eu
dist=$1 root=$2 system=${3:-/}
system=${system%/}

mkdir -p "$root/opt/tka/lib" "$root/bin" "$root/etc" "$root/tmp"
chmod 1777 "$root/tmp"
cp "$dist/tka-server" "$root/opt/tka/"
cp "$dist/lib/tka-server.cjs" "$root/opt/tka/lib/"
# For kubectl exec.
ln -s ../opt/tka/tka-server "$root/bin/tka-server"
# strip only supports its own architecture; without it the image is 33 MB larger.
strip -o "$root/opt/tka/lib/node" "$dist/lib/node" 2>/dev/null || cp "$dist/lib/node" "$root/opt/tka/lib/node"
chmod 755 "$root/opt/tka/lib/node"

taken=
# take FILE TO: copies a file of the system. /bin and /lib may be links to /usr or not.
take() {
  for from in "$system$1" "$system/usr$1"; do
    [ -e "$from" ] || continue
    mkdir -p "$root${2%/*}"
    cp -L "$from" "$root$2"
    taken="$taken $1"
    return
  done
  echo "rootfs.sh: no $1 in $system/" >&2
  exit 1
}

# For the script that starts the server.
take /bin/dash /bin/sh
take /bin/readlink /bin/readlink

# Programs name their libraries; the loader finds them in these folders.
needed() {
  readelf -d "$@" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u
}
add() {
  for name in $(needed "$@"); do
    for folder in lib usr/lib lib64 lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu lib/aarch64-linux-gnu usr/lib/aarch64-linux-gnu; do
      [ -e "$system/$folder/$name" ] || continue
      [ ! -e "$root/$folder/$name" ] || continue 2
      mkdir -p "$root/$folder"
      cp -L "$system/$folder/$name" "$root/$folder/$name"
      taken="$taken /$folder/$name"
      add "$root/$folder/$name"
      continue 2
    done
    echo "rootfs.sh: no $name in $system" >&2
    exit 1
  done
}
add "$root/opt/tka/lib/node" "$root/bin/sh" "$root/bin/readlink"
loader=$(readelf -l "$root/bin/sh" | sed -n 's/.*interpreter: \(.*\)\]/\1/p')
take "$loader" "$loader"

# record FILE: adds the package of a file and its licence. dpkg may list the file with or without /usr.
record() {
  for file in "$1" "/usr$1" "${1#/usr}"; do
    package=$(dpkg-query --admindir="$dpkg" --search "$file" 2>/dev/null | sed -n 's/^\([a-z0-9.+-]*\)[:,].*/\1/p' | head -n 1)
    [ -n "$package" ] || continue
    dpkg-query --admindir="$dpkg" --status "$package" >"$root/var/lib/dpkg/status.d/$package"
    mkdir -p "$root/usr/share/doc/$package"
    cp -L "$system/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
    return
  done
  echo "rootfs.sh: no package has $1" >&2
  exit 1
}
dpkg=$system/var/lib/dpkg
if [ -s "$dpkg/status" ]; then
  mkdir -p "$root/var/lib/dpkg/status.d"
  for file in $taken; do record "$file"; done
  cp -RL "$system/usr/share/common-licenses" "$root/usr/share/"
  take /etc/os-release /etc/os-release
fi

echo 'tka:x:65532:65532::/tmp:/bin/sh' >"$root/etc/passwd"
echo 'tka:x:65532:' >"$root/etc/group"
