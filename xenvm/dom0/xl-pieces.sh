# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2009,SC2034,SC2154,SC2317
# Pieces of a domain's life under unmodified xl.  Each is one function that works
# alike with and without the library (has_library), asserts what must hold in any
# case, and leaves a transcript: every xl command with its output and exit
# status, and the log of xl's monitor, without the numbers that differ from run
# to run.
#
# The pieces in $suspend_pieces meet a suspend, where the library is deliberately
# different; they assert both behaviours, and their transcripts are not compared.

plain_pieces=(create reboots shutdown destroy block)
suspend_pieces=(save-restore checkpoint)

transcripts=/tmp/transcripts

# run_piece MODE PIECE
run_piece() {
    local mode=$1 piece=$2 failed_before=$failed
    where="$piece ($mode)"
    transcript=$transcripts/$mode/$piece
    mkdir -p "${transcript%/*}"
    : >"$transcript"
    rm -f /var/log/xen/xl-*.log
    "piece_${piece//-/_}"
    wait_for no_xl_left || fail "$where" "xl's monitor is still there"
    clean_up
    if [ "$failed" = "$failed_before" ]; then pass "$where"; fi
}

# Whatever a failed piece left behind must not hurt the next one.
clean_up() {
    local name
    for name in $(xl list | awk 'NR > 2 { print $1 }'); do
        fail "$where" "domain $name was left behind"
        xl destroy "$name"
        wait_for is_gone "$name"
    done
    wait_for no_xl_left || fail "$where" "an xl process was left behind: $(ps | grep '[x]l ')"
    forget_console guest
}

must() {
    local why=$1
    shift
    "$@" || fail "$where" "$why"
}

# What differs from run to run: numbers of domains and processes, what a domain
# does at the moment, event channels and grants.
normalise() {
    sed -E 's/(domain|Domain|domid) [0-9]+/\1 N/g; s/pid [0-9]+/pid P/g
            s#(/vbd|/libxl)/[0-9]+/#\1/N/#g; s#0x[0-9a-f]+/0x[0-9a-f]+/[0-9]+#INFO#
            s/^guest +[0-9]+( +[0-9]+ +[0-9]+) .*/guest N\1 STATE TIME/
            s/^(51728 +0 +)[0-9]+( +[0-9]+) +[0-9]+ +[0-9]+ /\1N\2 PORT GRANT /
            /xc: progress/d'
}

# x WANTED_STATUS ARGUMENT...: one xl command, on record.
x() {
    local wanted=$1 output status
    shift
    output=$(run_xl "$@" 2>&1 </dev/null)
    status=$?
    { echo "\$ xl $*"; echo "$output"; echo "exit status $status"; } | normalise >>"$transcript"
    [ "$status" = "$wanted" ] || fail "$where" "xl $*: exit status $status, not $wanted: $output"
}

# The monitor's log must have the given lines, in order, and goes on record.
log_must_say() {
    local log=/var/log/xen/xl-guest.log line rest
    rest=$(normalise <$log)
    { echo "log:"; echo "$rest"; } >>"$transcript"
    for line; do
        case $rest in
            *"$line"*) rest=${rest#*"$line"} ;;
            *) fail "$where" "xl's log lacks '$line': $(tr '\n' '|' <$log)"; return ;;
        esac
    done
}

log_must_not_say() {
    ! grep -q "$1" /var/log/xen/xl-guest.log || fail "$where" "xl's log says '$1'"
}

log_says() { [ "$(grep -c "$1" /var/log/xen/xl-guest.log)" -ge "${2:-1}" ]; }

start_linux() {
    x 0 create "$(linux_config guest)"
    must "the guest did not start" wait_for linux_is_up guest
}

piece_create() {
    x 0 create "$(mini_config guest)"
    must "the guest did not start" wait_for mini_is_up guest
    x 0 list guest
    guest_do guest 0
    must "the guest was not cleaned up" wait_for is_gone guest
    must "xl's monitor is still there" wait_for no_xl_left
    log_must_say "Waiting for domain guest (domid N) to die" "Domain N has shut down, reason code 0" \
        "Action for shutdown reason code 0 is destroy" "needs to be cleaned up: destroying the domain" "Done. Exiting now"
    x 1 list guest
}

piece_reboots() {
    local round id
    reborn() { id=$(domid_of guest) && [ "$id" != "$1" ] && mini_is_up guest; }
    x 0 create "$(mini_config guest 'on_reboot = "restart"')"
    must "the guest did not start" wait_for mini_is_up guest
    for round in 1 2 3 4 5; do
        id=$(domid_of guest)
        forget_console guest
        guest_do guest 1
        must "reboot $round did not come" wait_for reborn "$id"
    done
    guest_do guest 0
    must "the guest was not cleaned up" wait_for is_gone guest
    must "xl's monitor is still there" wait_for no_xl_left
    must "not exactly five reboots" [ "$(grep -c 'Action for shutdown reason code 1 is restart' /var/log/xen/xl-guest.log)" = 5 ]
    log_must_say "Action for shutdown reason code 1 is restart" "Action for shutdown reason code 0 is destroy" "Done. Exiting now"
}

piece_shutdown() {
    start_linux
    x 0 shutdown -w guest
    must "the guest was not cleaned up" wait_for is_gone guest
    must "xl's monitor is still there" wait_for no_xl_left
    log_must_say "Domain N has shut down, reason code 0" "Action for shutdown reason code 0 is destroy" "Done. Exiting now"
}

piece_destroy() {
    x 0 create "$(mini_config guest)"
    must "the guest did not start" wait_for mini_is_up guest
    x 0 destroy guest
    must "the guest is still there" is_gone guest
    must "xl's monitor is still there" wait_for no_xl_left
    log_must_say "Domain N has been destroyed."
    x 1 destroy guest
}

piece_block() {
    local loop id
    vbd_state_is() { [ "$(xenstore-read "/local/domain/$id/device/vbd/51728/state" 2>/dev/null)" = "$1" ]; }
    vbd_is_gone() { ! xenstore-exists "/local/domain/$id/device/vbd/51728/state"; }
    dd if=/dev/zero of=/tmp/disk bs=1M count=4 2>/dev/null
    loop=$(losetup --find --show /tmp/disk)
    start_linux
    id=$(domid_of guest)
    x 0 block-attach guest "phy:$loop,xvdb,w"
    must "the guest did not take the disk" wait_for vbd_state_is 4
    x 0 block-list guest
    x 0 block-detach guest xvdb
    must "the disk's nodes are still there" wait_for vbd_is_gone
    x 0 block-list guest
    x 1 block-detach guest xvdb
    x 0 shutdown -w guest
    must "the guest was not cleaned up" wait_for is_gone guest
    must "xl's monitor is still there" wait_for no_xl_left
    log_must_say "Domain N has shut down, reason code 0" "Done. Exiting now"
    losetup -d "$loop"
    rm /tmp/disk
}

# A save destroys the domain.  xl's monitor as it is hears of the suspend first;
# with the library it hears of the end alone.
piece_save_restore() {
    start_linux
    x 0 save guest /tmp/saved
    must "the guest is still there" wait_for is_gone guest
    must "xl's monitor is still there" wait_for no_xl_left
    if has_library; then
        log_must_say "Domain N has been destroyed."
        log_must_not_say suspended
    elif xl_leaves_at_suspend; then
        log_must_say "Domain N has shut down, reason code 2" "Domain has suspended." "Done. Exiting now"
    else
        log_must_say "Domain N has shut down, reason code 2" "Domain has suspended." "Continue waiting for domain N" \
            "Domain N has been destroyed."
    fi
    rm -f /var/log/xen/xl-guest.log
    x 0 restore /tmp/saved
    rm /tmp/saved
    # That it runs again is shown by its answer.
    x 0 shutdown -w guest
    must "the guest was not cleaned up" wait_for is_gone guest
    must "xl's monitor is still there" wait_for no_xl_left
    log_must_say "Domain N has shut down, reason code 0" "Action for shutdown reason code 0 is destroy" "Done. Exiting now"
}

# A checkpoint: the domain is saved and runs on.  Where xl takes the suspend for
# the end, its monitor leaves, and nobody cleans up when the domain powers off;
# with the library it stays until then, and speaks of no suspend.
piece_checkpoint() {
    local monitor status log=/tmp/monitor.log
    run_xl create -F "$(linux_config guest)" >$log 2>&1 </dev/null &
    monitor=$!
    must "the guest did not start" wait_for linux_is_up guest
    x 0 save -c guest /tmp/saved
    rm -f /tmp/saved
    if xl_leaves_at_suspend; then
        must "the monitor did not leave at the checkpoint" wait_for has_ended $monitor
        must "the domain does not run" is_there guest
        x 0 shutdown -w guest
        # It stays as it is, for good: nobody is there to see it.
        must "the dead domain was cleaned up" is_shut_down guest
        xl destroy guest
    else
        must "the monitor left at the checkpoint" runs $monitor
        x 0 shutdown -w guest
        must "the monitor did not clean up" wait_for is_gone guest
        must "the monitor is still there" wait_for has_ended $monitor
        must "the monitor did not see the power-off" grep -q 'Action for shutdown reason code 0 is destroy' $log
    fi
    if has_library; then
        must "the monitor spoke of a suspend" bash -c "! grep -q suspended $log"
    else
        must "the monitor did not speak of a suspend" grep -q 'Domain has suspended' $log
    fi
    kill $monitor 2>/dev/null
    wait $monitor
    status=$?
    must "the monitor's exit status is $status" [ $status = 0 ]
}
