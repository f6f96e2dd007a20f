# SPDX-License-Identifier: LGPL-2.1-or-later
# What comes after `xlevent run` is a command line of its own.
_xlevent_run() {
    local first=2
    if [[ ${COMP_WORDS[1]} == run && ${COMP_WORDS[2]} == -- && $COMP_CWORD -gt 2 ]]; then
        first=3
    fi
    if [[ ${COMP_WORDS[1]} != run || $COMP_CWORD -lt 2 || ( $first == 2 && ${COMP_WORDS[2]} == -* ) ]]; then
        _xlevent "$@"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$first"
    elif [[ $COMP_CWORD -eq $first ]]; then
        mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}

complete -F _xlevent_run -o bashdefault -o default xlevent
