# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# The C programs that watch domains, and what each of them has seen.
#
# Every observer's output is brought to one form, "DOMID SHUTDOWN REASON" or
# "DOMID DEATH", so that one expectation fits all.

declare -A observer_pid=()
observer_dir=/tmp/observers
mkdir -p $observer_dir

# start_observer NAME COMMAND...: start a program as an observer.
start_observer() {
    local name=$1
    shift
    note observer "$name: $*"
    "$@" >$observer_dir/"$name" 2>$observer_dir/"$name.err" </dev/null &
    observer_pid[$name]=$!
}

# seen NAME: its events so far.
seen() {
    sed -E 's/^[0-9:.]+ ([0-9]+) [^ ]+ /\1 /
            s/ poweroff$/ 0/; s/ reboot$/ 1/; s/ suspend$/ 2/; s/ crash$/ 3/; s/ watchdog$/ 4/; s/ soft_reset$/ 5/
            / FOUND$/d; /^ready$/d' "$observer_dir/$1"
}

# all_saw LINE: has every observer printed this event?
all_saw() {
    local name
    for name in "${!observer_pid[@]}"; do
        seen "$name" | grep -qxF "$1" || return 1
    done
}

observer_is_ready() { grep -qx ready "$observer_dir/$1"; }
