# Completions of styxy for bash.

_styxy() {
    # What the user sees as one word, bash splits at = and : (COMP_WORDBREAKS).
    local words=() starts=() word glue='' i
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]-}
        if [[ -n $glue || $word == [=:]* ]] && ((${#words[@]})); then
            words[-1]+=$word
        else
            words+=("$word")
            starts+=("$i")
        fi
        [[ $word == *[=:] ]] && glue=1 || glue=''
    done
    local current=${words[-1]-} line lines candidate
    mapfile -t lines < <(command styxy __complete -- "${words[@]}" 2>/dev/null)

    COMPREPLY=()
    for line in "${lines[@]}"; do
        case $line in
        :file) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
        :directory) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -d -- "$2") ;;
        :command\ *)
            _styxy_command "${starts[${line#:command }]:-$COMP_CWORD}" "$2"
            return
            ;;
        *)
            # Only what stands behind the last = or : is replaced.
            candidate=${line%%$'\t'*}
            candidate=${candidate#"${current%"${current##*[=:]}"}"}
            COMPREPLY+=("$(printf %q "$candidate")")
            ;;
        esac
    done
}

# Completes the command line that begins with word number $1, as that command does itself.
_styxy_command() {
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif (($1 == COMP_CWORD)); then
        mapfile -t COMPREPLY < <(compgen -c -- "$2")
    else
        compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$2")
    fi
}

complete -F _styxy styxy
