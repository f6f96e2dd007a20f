# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# libvirt in dom0: its daemon with the driver for Xen, clients that hear of
# events, and domains.  xl-pieces.sh comes first: where, must, normalise.
#
# One daemon runs at a time.  What a client hears are the lines of its file, in
# the order in which it heard them; a client that is started again adds to it.

daemon_pid=
daemon_log=/var/log/xen/libvirtd.log
daemon_output=/var/log/xen/libvirtd.out
declare -A client_pid=()
client_dir=/tmp/clients
here=xen:///system
over_tcp=xen+tcp://127.0.0.1/system
probes=0

install_libvirt() {
    (cd / && cpio -idu 2>/dev/null </host/addons/libvirt.cpio)
    [ -x /usr/sbin/libvirtd ] || give_up "no libvirt in the image"
    mkdir -p /etc/libvirt $client_dir
    # No other user here, and no other machine.
    cat >/etc/libvirt/libvirtd.conf <<END
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
auth_tcp = "none"
host_uuid = "5e0a1c44-7a44-4bd2-9d5f-6b1f7b1f0c11"
log_outputs = "3:file:$daemon_log"
END
}

# start_daemon COMMAND...: libvirtd, perhaps by env with something set.
start_daemon() {
    "$@" --listen >>$daemon_output 2>&1 </dev/null &
    daemon_pid=$!
    wait_for virsh -c $here list || give_up "libvirtd does not answer: $(tail -n 3 $daemon_output $daemon_log)"
}

stop_daemon() {
    local status
    kill "$daemon_pid"
    wait_for has_ended "$daemon_pid" || { fail "$where" "libvirtd does not end"; kill -9 "$daemon_pid"; }
    wait "$daemon_pid"
    status=$?
    must "libvirtd's exit status is $status" [ $status = 0 ]
}

# What a context of ours waits on; libvirtd alone has no such descriptor.  (All of the list is read: pipefail.)
has_epoll() { ls -l "/proc/$1/fd" | grep 'anon_inode:\[eventpoll\]' >/dev/null; }

# start_client NAME URI: a process that is told of every event.
start_client() {
    stdbuf -oL virsh -c "$2" event --all --loop >>"$client_dir/$1" 2>>"$client_dir/$1.err" </dev/null &
    client_pid[$1]=$!
    # Nothing else tells that it has subscribed.
    probes=$((probes + 1))
    wait_for hears_probe "$1" || give_up "client $1 hears nothing: $(cat "$client_dir/$1.err")"
}

hears_probe() {
    virsh -q -c $here define <(domain_xml "probe$probes" mini) && virsh -q -c $here undefine "probe$probes"
    grep -q "'probe$probes'" "$client_dir/$1"
}

# What a client has heard, but for the probes and its own words at the end;
# lifecycle events in short.
heard() { sed -E "/'probe[0-9]+'/d; /^$/d; /^event loop /d; /^events received: /d; s/^event 'lifecycle' for domain '([^']*)'/\1/" "$client_dir/$1"; }

# Ctrl-C ends a client.
stop_client() {
    kill -INT "${client_pid[$1]}"
    wait_for has_ended "${client_pid[$1]}" || { fail "$where" "client $1 does not end"; kill -9 "${client_pid[$1]}"; }
    wait "${client_pid[$1]}"
    unset "client_pid[$1]"
}

# domain_xml NAME KIND [ON_REBOOT]: KIND is mini or linux (see lib.sh).
domain_xml() {
    local kernel=/host/guests/mini memory=4 more=
    if [ "$2" = linux ]; then
        linux_config "$1" >/dev/null
        kernel=/tmp/guests/vmlinux memory=128
        more="<initrd>/tmp/guests/linux.cpio</initrd><cmdline>console=hvc0 quiet</cmdline>"
    fi
    cat <<END
<domain type='xen'>
  <name>$1</name>
  <memory unit='MiB'>$memory</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='xenpv'>linux</type><kernel>$kernel</kernel>$more</os>
  <on_poweroff>destroy</on_poweroff><on_reboot>${3:-restart}</on_reboot><on_crash>destroy</on_crash>
  <devices><console type='pty'/></devices>
</domain>
END
}

# v ARGUMENT...: one virsh command that must succeed, on record.
v() {
    local output status
    output=$(virsh -c $here "$@" 2>&1 </dev/null)
    status=$?
    { echo "\$ virsh $*"; echo "$output"; echo "exit status $status"; } | normalise >>"$transcript"
    [ $status = 0 ] || fail "$where" "virsh $*: exit status $status: $output"
}

# expect CLIENT EVENT...: wait until it has heard of that many more, which must
# be these.  Their order is libvirt's affair; it goes on record.
declare -A expected=()
expect() {
    local client=$1 before=${expected[$1]:-0} got
    shift
    expected[$client]=$((before + $#))
    wait_for has_heard "$client" "${expected[$client]}"
    got=$(heard "$client" | tail -n "+$((before + 1))")
    printf '%s\n' "$got" >>"$transcript"
    [ "$(sort <<<"$got")" = "$(printf '%s\n' "$@" | sort)" ] ||
        fail "$where" "$client heard '${got//$'\n'/; }', not '$(printf '%s; ' "$@")'"
    # So that what comes next is judged by itself.
    expected[$client]=$(heard "$client" | wc -l)
}
has_heard() { [ "$(heard "$1" | wc -l)" -ge "$2" ]; }

# Start a client's account anew.
forget_heard() {
    rm -f "$client_dir/$1"
    expected[$1]=0
}
