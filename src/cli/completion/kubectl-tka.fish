# fish completion for kubectl-tka. In ~/.config/fish/config.fish: kubectl-tka completion fish | source
# Or as a file kubectl-tka.fish in ~/.config/fish/completions.

function __kubectl_tka_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program kubectl-tka
    if string match -q '*/*' -- $words[1]
        set program (string replace -r '^~/' "$HOME/" -- $words[1])
    end
    set -e words[1]
    set -l lines (command $program __complete $words (string unescape -- $current; or echo -- $current) 2>/dev/null)
    test (count $lines) -gt 0; or return
    # Only the value of --flag=value is completed, but fish expects the whole word.
    set -l prefix (string match -r -- '^-.*=' $current; or echo)
    set -l directive (string sub -s 2 -- $lines[-1])
    set -e lines[-1]
    if test (count $lines) -gt 0
        printf '%s\n' $prefix$lines
    else if test "$directive" = 0
        __fish_complete_path (string replace -r -- '^-.*=' '' $current)
    end
end

complete -c kubectl-tka -f -a '(__kubectl_tka_complete)'
