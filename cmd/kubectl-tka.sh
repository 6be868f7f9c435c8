#!/bin/sh
# Prints a fresh cached credential without a fork. Passes everything else, and everything unusual, to the program in lib/.
# It accepts what src/credential/fast.ts accepts; one table of cases tests both.
# build.ts keeps a line that ends in `# linux`, `# darwin`, `# bundle` or `# executable` only for those.
# All names begin with tka_, so that no variable of the caller changes; lib/ would inherit it.

# Undo what shells inherit: functions and matching modes in bash, and options (a trace would show the token).
case ${BASH_VERSION-} in
?*)
  \unset -f unset unalias shopt : '[' break command echo exec exit export read readlink return set shift umask
  \unalias -a
  # shellcheck disable=SC3044 # bash only
  shopt -u nocasematch
  ;;
esac
set +aCefuvx
tka_newline='
'

# Returns 0 if KUBERNETES_EXEC_INFO is absent or as client-go writes it. Sets tka_api to the requested apiVersion.
tka_version() {
  tka_api=client.authentication.k8s.io/v1
  [ -n "${KUBERNETES_EXEC_INFO-}" ] || return 0
  case $KUBERNETES_EXEC_INFO in
  '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{'*) ;;
  '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{'*) tka_api=${tka_api}beta1 ;;
  *) return 1 ;;
  esac
  tka_spec=${KUBERNETES_EXEC_INFO#*'"spec":{'}
  tka_spec=${tka_spec%"$tka_newline"}
  case $tka_spec in
  '"interactive":false}}' | '"interactive":true}}' | '}}') return 0 ;;
  *[!\ -~]* | *\\*) return 1 ;;
  '"cluster":{"'*) ;;
  *) return 1 ;;
  esac
  # A cluster: "key":"text" or "key":word. The text contains no quotes, so quotes separate the fields.
  IFS='"'
  # shellcheck disable=SC2086 # to be split
  set -f -- $tka_spec
  shift 3
  while [ $# -gt 1 ]; do
    case $1 in
    '' | *[!a-z-]*) return 1 ;;
    esac
    case $2 in
    :) [ $# -gt 3 ] && tka_after=$4 && shift 2 || return 1 ;;
    :true*) tka_after=${2#:true} ;;
    :false*) tka_after=${2#:false} ;;
    :null*) tka_after=${2#:null} ;;
    *) return 1 ;;
    esac
    shift 2
    case $tka_after in
    ,) ;;
    '},') break ;;
    '}}}') return $# ;;
    *) return 1 ;;
    esac
  done
  case $#${1-}${2-} in
  '2interactive:true}}' | '2interactive:false}}') return 0 ;;
  esac
  return 1
}

# Returns 0 if the recorded caller with this process ID was another process, which is common in containers. Compares the
# start time: the 20th field after the name, which can contain anything. Only if it was recorded too, and only on Linux.
tka_another() {
  IFS= read -r tka_stat <"/proc/$PPID/stat" || return 1
  IFS=' '
  # shellcheck disable=SC2086 # to be split
  set -f -- ${tka_stat##*\) }
  [ $# -gt 19 ] && shift 19 || return 1
  tka_caller=$PPID:$1
  case " $tka_callers " in
  *" $tka_caller "*) return 1 ;;
  esac
}

# credential --server URL [--api-server URL]: prints the entry and exits. Returns 1 if not served, 2 if stdout fails.
tka_serve() {
  if [ -n "${TKA_CACHE_DIR-}" ]; then
    tka_folder=$TKA_CACHE_DIR
  else
    case ${XDG_CACHE_HOME-} in            # linux
    /*) tka_folder=$XDG_CACHE_HOME ;;     # linux
    *) tka_folder=${HOME:+$HOME/.cache} ;; # linux
    esac                                  # linux
    tka_folder=${HOME:+$HOME/Library/Caches} # darwin
    [ -n "$tka_folder" ] || return 1
    tka_folder=$tka_folder/kubectl-tka
  fi
  case ${XDG_STATE_HOME-} in              # linux
  /*) tka_state=$XDG_STATE_HOME ;;        # linux
  *) tka_state=${HOME:+$HOME/.local/state} ;; # linux
  esac                                    # linux
  tka_state=${HOME:+$HOME/Library/Application Support} # darwin
  [ -n "$tka_state" ] || return 1
  case /$tka_folder//$tka_state/ in
  */../*) return 1 ;; # after a symbolic link, .. is another folder
  esac
  case $tka_folder in
  /*) ;;
  *) tka_folder=./$tka_folder ;;
  esac

  case $2 in
  https://*) tka_rest=${2#https://} tka_name=https+ ;;
  http://*) tka_rest=${2#http://} tka_name=http+ ;;
  *) return 1 ;;
  esac
  tka_path=
  case $tka_rest in
  */clusters/*) # a cluster that has joined this server
    tka_path=${tka_rest#*/clusters/}
    tka_rest=${tka_rest%"/clusters/$tka_path"}
    case $tka_path in
    '' | *[!a-z0-9-]* | -* | *-) return 1 ;;
    esac
    [ "${#tka_path}" -le 63 ] || return 1
    tka_path=+clusters+$tka_path
    ;;
  esac
  case $tka_rest in
  \[*\]*)
    tka_host=${tka_rest%%\]*}
    tka_port=${tka_rest#"$tka_host"\]}
    case $tka_host in
    \[ | ?*[!0-9a-f:.]*) return 1 ;;
    esac
    ;;
  *)
    tka_host=${tka_rest%%:*}
    tka_port=${tka_rest#"$tka_host"}
    case $tka_host in
    '' | *[!a-z0-9._-]* | [!a-z0-9]* | *[!a-z0-9]) return 1 ;;
    esac
    ;;
  esac
  case $tka_port in
  '' | :[0-9] | :[0-9][0-9] | :[0-9][0-9][0-9] | :[0-9][0-9][0-9][0-9] | :[0-9][0-9][0-9][0-9][0-9]) ;;
  *) return 1 ;;
  esac
  while :; do
    case $tka_rest in
    *:*) tka_name=$tka_name${tka_rest%%:*}+ tka_rest=${tka_rest#*:} ;;
    *) break ;;
    esac
  done
  tka_rest=$tka_rest$tka_path
  tka_entry=$tka_folder/$tka_name$tka_rest
  tka_served=$tka_entry+served
  tka_mark=$tka_state/kubectl-tka/signed-out/$tka_name$tka_rest

  # In a shell without one of these tests, the test fails.
  # shellcheck disable=SC3013,SC3067
  [ ! -e "$tka_mark" ] && [ ! -h "$tka_mark" ] && [ -O "$tka_folder" ] && [ ! -k "$tka_folder" ] &&
    [ -f "$tka_entry" ] && [ ! -h "$tka_entry" ] && [ -O "$tka_entry" ] || return 1
  {
    IFS= read -r tka_head && case $tka_head in 'tka1 '*) ;; *) return 1 ;; esac &&
      IFS= read -r tka_server && [ "$tka_server" = "$2" ] &&
      IFS= read -r tka_apiserver && IFS= read -r tka_expires && IFS= read -r tka_token
  } <"$tka_entry" || return 1
  [ "${#tka_token}" -le 16384 ] && [ "${#tka_apiserver}" -le 2048 ] || return 1
  case $tka_head in
  "tka1 ${#tka_token} "*) tka_until=${tka_head#"tka1 ${#tka_token} "} ;;
  *) return 1 ;;
  esac
  case $tka_until in
  '' | *[!0-9]* | ?????????????*) return 1 ;;
  esac
  case $tka_apiserver in
  *[!!-~]*) return 1 ;;
  https://?*) ;;
  *) return 1 ;;
  esac
  [ $# = 2 ] || [ "$4" = "$tka_apiserver" ] || return 1
  case $tka_expires in
  *-00-* | *-1[3-9]-* | *-00T* | *-3[2-9]T* | *T2[4-9]:*) return 1 ;;
  [0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z) ;;
  *) return 1 ;;
  esac
  case $tka_token in
  *[!A-Za-z0-9._-]* | *.*.*.*) return 1 ;;
  ?*.?*.?*) ;;
  *) return 1 ;;
  esac
  tka_version || return 1

  # The last callers that it was served to: src/credential/served.ts. The record is overwritten without truncation (which
  # takes longer); its modification time is also the clock.
  tka_caller=$PPID
  # shellcheck disable=SC3013,SC3067
  if [ -h "$tka_served" ]; then
    return 1
  elif [ -e "$tka_served" ]; then
    [ -f "$tka_served" ] && [ -O "$tka_served" ] || return 1
    IFS= read -r tka_callers <"$tka_served"
    case $tka_callers in
    *[!0-9:\ -]*) return 1 ;;
    *' '*' '*' '*) ;;
    *) return 1 ;;
    esac
    [ "${#tka_callers}" -lt 200 ] || return 1
    case " $tka_callers " in
    *" $PPID "*) return 1 ;;
    *" $PPID:"*) tka_another || return 1 ;;
    esac
  else
    tka_callers='- - - -'
    umask 077
  fi
  echo "$tka_caller ${tka_callers% *}" 1<>"$tka_served" || return 1
  # shellcheck disable=SC3013
  [ "$tka_entry" -nt "$tka_served" ] || return 1
  echo "{\"kind\":\"ExecCredential\",\"apiVersion\":\"$tka_api\",\"status\":{\"token\":\"$tka_token\",\"expirationTimestamp\":\"$tka_expires\"}}" || return 2
  exit 0
}

case $#${TKA_DEBUG:+debug},${1-},${2-},${4---api-server} in
3,credential,--server,--api-server | 5,credential,--server,--api-server)
  tka_locale=${LC_ALL+=$LC_ALL}
  LC_ALL=C
  shift
  tka_serve "$@" 2>/dev/null
  if [ $? = 2 ]; then
    echo 'error: cannot write the credential' >&2
    echo 'hint: kubectl tka doctor' >&2
    exit 1
  fi
  unset tka_token
  set -- credential "$@"
  case $tka_locale in
  '') unset LC_ALL ;;
  *) { LC_ALL=${tka_locale#=}; } 2>/dev/null ;;
  esac
  ;;
esac

# The path that started this script. After `sh kubectl-tka` it is a name in this folder or on PATH.
tka_self=$0
case $tka_self in
*/*) ;;
*)
  if [ -f "./$tka_self" ]; then
    tka_self=./$tka_self
  else
    tka_found=$(command -v -- "$tka_self") && tka_self=$tka_found
  fi
  ;;
esac
tka_file=$tka_self
while [ -h "$tka_file" ]; do
  # The dot preserves a newline at the end of a name.
  tka_link=$({ readlink -- "$tka_file" || command -p readlink -- "$tka_file"; } 2>/dev/null && echo .)
  tka_link=${tka_link%"$tka_newline."}
  case $tka_link in
  '') break ;;
  /*) tka_file=$tka_link ;;
  *) tka_file=${tka_file%/*}/$tka_link ;;
  esac
done
tka_lib=${tka_file%/*}/lib
set -- "$tka_lib/node" "$tka_lib/kubectl-tka.cjs" --started-as "$tka_self" "$@" # bundle
set -- "$tka_lib/kubectl-tka" --started-as "$tka_self" "$@" # executable
[ -s "$2" ] || set -- "$2" "$@" # bundle
# A shell runs an empty file as a script that does nothing, and succeeds.
if [ ! -f "$1" ] || [ ! -s "$1" ] || [ ! -x "$1" ]; then
  tka_fault='cannot be run'
  [ -e "$1" ] || tka_fault='is missing'
  echo "error: incomplete installation: $1 $tka_fault" >&2
  echo 'hint: install it again' >&2
  exit 1
fi
# Without glibc 2.28 or newer the program cannot start, and the system's own message has no hint. Up to glibc 2.33, a file # linux
# has the version in its name; the loader then tells whether it is too old. # linux
tka_glibc=                                                                                # linux
[ -e /lib64/ld-linux-x86-64.so.2 ] || [ -e /lib/ld-linux-aarch64.so.1 ] || tka_glibc=none # linux
for tka_minor in 12 17 18 19 20 21 22 23 24 25 26 27; do                                  # linux
  for tka_folder in /lib64 /lib/x86_64-linux-gnu /lib/aarch64-linux-gnu; do               # linux
    [ -e "$tka_folder/ld-2.$tka_minor.so" ] || continue                                   # linux
    case $(LD_TRACE_LOADED_OBJECTS=1 "$1" 2>&1) in                                        # linux
    *GLIBC_*'not found'*) tka_glibc="glibc 2.$tka_minor" ;;                               # linux
    esac                                                                                  # linux
  done                                                                                    # linux
done                                                                                      # linux
if [ -n "$tka_glibc" ]; then                                                              # linux
  echo "error: kubectl-tka needs glibc 2.28 or newer, and this system has $tka_glibc" >&2 # linux
  echo 'hint: use it on Debian 10, Ubuntu 20.04, RHEL 8 or newer' >&2                     # linux
  exit 1                                                                                  # linux
fi                                                                                        # linux
# Options for the caller's own Node (--inspect-brk, --require) must not stop kubectl.
if [ -n "${TKA_NODE_OPTIONS-}" ]; then
  export NODE_OPTIONS="$TKA_NODE_OPTIONS"
else
  unset NODE_OPTIONS
fi
exec "$@"
