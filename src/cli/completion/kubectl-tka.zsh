#compdef kubectl-tka
# zsh completion for kubectl-tka. In ~/.zshrc, after compinit: source <(kubectl-tka completion zsh)
# Or as a file called _kubectl-tka in a folder of $fpath.

_kubectl_tka() {
  local program=kubectl-tka line directive=0 escaped
  [[ $words[1] == */* ]] && program=${${(Q)words[1]}/#\~\//$HOME/}
  local -a rows space
  for line in "${(@f)$(command $program __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
    if [[ $line == :* ]]; then
      directive=${line#:}
    elif [[ -n $line ]]; then
      # _describe splits text and description at the first colon without a backslash.
      escaped=${${line%%$'\t'*}//:/\\:}
      [[ $line == *$'\t'* ]] && escaped+=:${line#*$'\t'}
      rows+=$escaped
    fi
  done
  (( directive & 2 )) && space=(-S '')
  # Complete only the value of --flag=value.
  [[ $PREFIX == -*=* ]] && compset -P '-*='
  if (( $#rows )); then
    _describe -V 'kubectl-tka' rows "${space[@]}"
  elif (( ! (directive & 4) )); then
    _files
  else
    return 1
  fi
}

if [[ ${funcstack[1]-} == _kubectl-tka ]]; then
  _kubectl_tka "$@"
else
  compdef _kubectl_tka kubectl-tka
fi
