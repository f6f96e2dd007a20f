# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# The machine: the shared folder, QEMU, and watching over it.
#
# The shared folder carries everything both ways.  In: dom0/ (the script that
# runs there, and what scenarios share), scenarios/, guests/, addons/, lib/ and
# bin/ (what is under test), command (what to run).  Out: booted (dom0 is up),
# output (what the scenario prints), status (its exit status, written last),
# timeline (what happened when: note in dom0/lib.sh), observers/ (what each
# program has seen that watched), logs/ (Xen's logs).

boot_limit=${XLEVENT_VM_BOOT_LIMIT:-1200}
memory_mib=${XLEVENT_VM_MEMORY:-3072}
clock=${XLEVENT_VM_CLOCK:-host}

# prepare_share SHARE COMMAND...
prepare_share() {
    local share=$1 part
    shift
    rm -rf "$share"
    mkdir -p "$share"/{lib,bin,logs}
    cp -r "$xenvm/dom0" "$xenvm/scenarios" "$share/"
    # Nothing writes to these, so a link is as good as a copy.
    for part in guests addons; do
        cp -rl "$cache/image/$part" "$share/" 2>/dev/null || cp -r "$cache/image/$part" "$share/"
    done
    printf '%q ' "$@" >"$share/command"
}

# qemu SHARE CONSOLE: console is what -serial takes.
# Runs inside the image's folder: the multiboot module list knows no quoting.
start_qemu() {
    local share counting=()
    case $clock in
        host) ;;
        # A nanosecond for each: what something costs in there does not depend on what else goes on out here.
        instructions) counting=(-icount shift=0) ;;
        *) die "XLEVENT_VM_CLOCK is host or instructions, not $clock" ;;
    esac
    share=$(realpath "$1")
    cd "$cache/image"
    exec qemu-system-x86_64 -accel tcg "${counting[@]}" -cpu Nehalem,+rdrand -smp 1 -m "$memory_mib" \
        -display none -monitor none -serial "$2" -no-reboot -nic none -no-user-config \
        -virtfs "local,path=${share//,/,,},mount_tag=host,security_model=none,multidevs=remap" \
        -kernel xen \
        -initrd "vmlinuz console=hvc0 quiet loglevel=4 mitigations=off nokaslr rdinit=/init,dom0.cpio" \
        -append "console=com1 com1=115200,8n1 dom0_mem=1536M,max:1536M loglvl=warning guest_loglvl=warning spec-ctrl=no xpti=no"
}

# run_machine SHARE CONSOLE_FILE TIMEOUT: boot, show what the scenario prints,
# and return its exit status; die when there is none.
run_machine() {
    local share=$1 console=$2 timeout=$3 begin=$SECONDS qemu shown= why=
    : >"$share/output"
    start_qemu "$share" "file:$(realpath -m "$console")" </dev/null &
    qemu=$!
    # shellcheck disable=SC2064 # now, not later
    trap "kill $qemu 2>/dev/null || true" EXIT
    say "booting Xen $release (console: $console)"
    while kill -0 "$qemu" 2>/dev/null; do
        if [ -z "$shown" ] && [ -e "$share/booted" ]; then
            say "dom0 is up after $((SECONDS - begin)) s"
            tail -n +1 -s 0.2 --pid="$qemu" -f "$share/output" &
            shown=$!
        fi
        if grep -aqE 'Kernel panic|Panic on CPU|FATAL TRAP' "$console" 2>/dev/null; then
            why="it crashed"
        elif [ -z "$shown" ] && [ $((SECONDS - begin)) -ge "$boot_limit" ]; then
            why="dom0 was not up after $boot_limit s"
        elif [ $((SECONDS - begin)) -ge "$timeout" ]; then
            why="not finished after $timeout s"
        fi
        [ -z "$why" ] || break
        sleep 0.5
    done
    kill "$qemu" 2>/dev/null || true
    wait "$qemu" || true
    trap - EXIT
    [ -z "$shown" ] || wait "$shown" || true
    if [ -s "$share/status" ]; then
        say "finished in $((SECONDS - begin)) s"
        return "$(cat "$share/status")"
    fi
    say "the console's last lines:"
    tail -n 25 "$console" | tr -d '\r' | sed 's/^/    /' >&2 || true
    die "${why:-the machine stopped before the scenario ended}; all of it: $console"
}
