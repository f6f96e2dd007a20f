# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What scenarios share: results, waiting for conditions, guests.
#
# Invariants: a scenario ends with `finish`, so its exit status says whether all
# passed.  Nothing waits for time to pass, only for conditions, with a bound that
# is generous for an emulated machine.
set -uo pipefail

passed=0
failed=0
limit=600   # seconds that a condition may take, on a machine that is busy with much else

# note KIND TEXT...: a line with the time, for who wants to know afterwards what
# happened when; the page that `make report` writes shows it.
timeline=${timeline:-/host/timeline}
note() {
    local now=$EPOCHREALTIME kind=$1 text
    shift
    text="$*"
    printf '%(%H:%M:%S)T.%s %s %s\n' "${now%[.,]*}" "${now: -6:3}" "$kind" "${text//[$'\n\r']/ }" >>"$timeline"
}
note begin "${0##*/}"

pass() { passed=$((passed + 1)); echo "PASS $*"; note pass "$*"; }
fail() { failed=$((failed + 1)); echo "FAIL $1: $2"; note fail "$1: $2"; }

# check NAME WHY COMMAND...: one result.
check() {
    local name=$1 why=$2
    shift 2
    if "$@"; then pass "$name"; else fail "$name" "$why"; fi
}

finish() {
    # What the observers have seen, and when, is kept with the rest.
    [ ! -d /tmp/observers ] || cp -r /tmp/observers "${timeline%/*}/" || true
    note end "$passed passed, $failed failed"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
}

# For what must work before anything can be tested.
give_up() {
    fail setup "$*"
    finish
}

need_library() { [ -n "$XLEVENT_LIB" ] || give_up "this scenario needs libxlevent.so (XLEVENT_LIB)"; }

# wait_for COMMAND...: until it succeeds; fails after the limit.
wait_for() {
    local end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then
            echo "    timed out after $limit s: $*"
            # Something is broken: don't be as patient with all that depends on it.
            limit=$((limit > 20 ? 20 : limit))
            return 1
        fi
        sleep 0.1
    done
}

# xl as it is; with the library preloaded; a copy that needs the library.
preload=
xl_program=xl
without_library() { preload='' xl_program=xl; }
with_library() { preload=$XLEVENT_LIB xl_program=xl; }
with_relinked_xl() { preload='' xl_program=/usr/lib/relinked/xl; }
has_library() { [ -n "$preload" ] || [ "$xl_program" != xl ]; }
run_xl() {
    note xl "$(has_library && echo "with the library: ")xl $*"
    LD_PRELOAD=$preload "$xl_program" "$@"
}

# Up to 4.19 xl takes a suspend for the end and leaves; then it waits on.
xen_minor=$(cat /sys/hypervisor/version/minor)
xl_leaves_at_suspend() { ! has_library && [ "$xen_minor" -lt 20 ]; }

# Which event library is a process using?
uses_library() { grep -q '/libxlevent\.so' "/proc/$1/maps"; }
uses_original() { grep -q '/libxenlight\.so' "/proc/$1/maps"; }
uses_library_alone() { uses_library "$1" && ! uses_original "$1"; }

# config NAME KERNEL MIB [LINE...]: write a domain's configuration, print its path.
config() {
    local name=$1 kernel=$2 memory=$3
    shift 3
    {
        printf 'name = "%s"\ntype = "pv"\nkernel = "%s"\nmemory = %d\nvcpus = 1\n' "$name" "$kernel" "$memory"
        [ $# = 0 ] || printf '%s\n' "$@"
    } >"/tmp/$name.cfg"
    echo "/tmp/$name.cfg"
}

# The mini guest: ends when told to, see guest_do.
mini_config() {
    local name=$1
    shift
    config "$name" /host/guests/mini 4 "$@"
}

# A Linux guest: answers to xl shutdown, save and block devices.
linux_config() {
    local name=$1 file
    shift
    mkdir -p /tmp/guests
    # Out of the shared folder once: it is slow to read.
    for file in vmlinux linux.cpio; do
        [ -e "/tmp/guests/$file" ] || cp "/host/guests/$file" /tmp/guests/
    done
    config "$name" /tmp/guests/vmlinux 128 'ramdisk = "/tmp/guests/linux.cpio"' 'extra = "console=hvc0 quiet"' "$@"
}

domid_of() { xl domid "$1" 2>/dev/null; }
is_there() { domid_of "$1" >/dev/null; }
is_gone() { ! is_there "$1"; }

# state_of NAME: the letters of xl list (running, blocked, paused, shutdown, crashed, dying).
state_of() { xl list "$1" 2>/dev/null | awk 'NR == 2 { print $5 }'; }
is_shut_down() { [[ $(state_of "$1") == ---s* ]]; }

# The console log of this very domain: the file is shared by all of one name.
console_says() { grep -aqs "$2" "/var/log/xen/console/guest-$1.log"; }
forget_console() { rm -f "/var/log/xen/console/guest-$1.log"; }

# A mini guest listens once it has said so, a Linux guest once its kernel has
# told xenstore what it understands and its first process runs.
mini_is_up() { console_says "$1" 'mini: up'; }
linux_is_up() {
    local id
    console_says "$1" 'linux: up' && id=$(domid_of "$1") &&
        [ "$(xenstore-read "/local/domain/$id/control/feature-poweroff" 2>/dev/null)" = 1 ]
}

# guest_do NAME CHARACTER: type it at a mini guest's console (see guest/mini.S).
guest_do() {
    local tty
    note guest "$1 is told: $2"
    tty=$(xenstore-read "/local/domain/$(domid_of "$1")/console/tty") && printf '%s' "$2" >"$tty"
}

# Is a process of that id still there?
runs() { kill -0 "$1" 2>/dev/null; }
has_ended() { ! runs "$1"; }

# xl's monitors run in the background under xl's own name.
command -v pidof >/dev/null || give_up "no pidof: xl's monitors could not be seen"
no_xl_left() { ! pidof xl >/dev/null; }
