# bash completion for kubectl-tka, for bash 3.2 and newer. In ~/.bashrc: source <(kubectl-tka completion bash)
# (bash 3.2 cannot source a pipe: eval "$(kubectl-tka completion bash)").

_kubectl_tka() {
  local IFS=$' \t\n' program=kubectl-tka
  case $1 in */*) program=${1/#\~/$HOME} ;; esac

  # bash splits words at = and :, so join them again as they stand on the line.
  local line=${COMP_LINE:0:COMP_POINT} last=-1 i gap word
  local -a words
  for ((i = 0; i <= COMP_CWORD; i++)); do
    gap=${line%%[![:space:]]*}
    line=${line#"$gap"}
    word=${COMP_WORDS[i]}
    if ((i == COMP_CWORD)); then word=$line; fi
    line=${line#"$word"}
    if [[ $last -lt 0 || -n $gap ]]; then last=$((last + 1)); fi
    words[last]=${words[last]-}$word
  done
  # The part that readline replaces: the text after the last = or :.
  local replaced=$word
  case $word in [=:]*) replaced='' ;; esac

  # Never evaluate what the user typed: remove quotes and backslashes, and take the rest literally.
  local current=${words[last]//[\'\"\\]/} directive=0
  local -a before values texts
  for ((i = 1; i < last; i++)); do before[i]=${words[i]//[\'\"\\]/}; done
  while IFS= read -r line; do
    case $line in
    :*) directive=${line#:} ;;
    ?*)
      values[${#values[@]}]=${line%%$'\t'*}
      texts[${#texts[@]}]=$line
      ;;
    esac
  done < <("$program" __complete ${before[@]+"${before[@]}"} "$current" 2>/dev/null)

  case $current in -*=*) current=${current##*=} ;; esac
  local kept=${current%"${replaced//[\'\"\\]/}"} count=${#values[@]}
  COMPREPLY=()
  for ((i = 0; i < count; i++)); do
    word=${values[i]}
    case $word in "$current"*) ;; *) continue ;; esac
    # Add descriptions only to a list that is shown; they must never reach the command line.
    if [[ ${COMP_TYPE-} == 63 && ${texts[i]} == *$'\t'* ]]; then word="$word  (${texts[i]#*$'\t'})"; fi
    COMPREPLY[${#COMPREPLY[@]}]=${word#"$kept"}
  done
  if [[ $(type -t compopt) == builtin ]]; then
    if ((directive & 2)); then compopt -o nospace; fi
    if ((directive & 4)); then compopt +o default; fi
  fi
}

complete -o default -F _kubectl_tka kubectl-tka
