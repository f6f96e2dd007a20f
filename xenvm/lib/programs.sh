# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What is under test, on its way into the machine: the library, the command and
# the C programs that use it.
#
#   XLEVENT_LIB   the library (default: this tree's, which is built and installed
#                 into the target directory first); "none" for a machine without it
#   EVENTLIB      what the C programs are linked with: xlevent (default, when
#                 there is a library) or xenlight, for comparison
#   PKG_CONFIG_PATH  where pkg-config finds xlevent (default: where it is installed)

target=$(realpath -m "${CARGO_TARGET_DIR:-$top/target}")
stage=$target/xenvm/$release/stage

library=${XLEVENT_LIB:-$stage/lib/libxlevent.so}
[ "$library" != none ] || library=
event_lib=${EVENTLIB:-}
[ -n "$event_lib" ] || event_lib=$([ -n "$library" ] && echo xlevent || echo xenlight)

# What is built here runs in dom0 unless dom0's C library is older than ours; then it is built with dom0's.
build_library() {
    local how=(env)
    if host_is_newer; then
        how=(with_sysroot)
        say "building for the C library of Xen $release's dom0"
    fi
    "${how[@]}" make -s --no-print-directory -C "$top" stage STAGE="$stage" >&2 || die "could not build the library"
}

host_is_newer() {
    local here there
    here=$(getconf GNU_LIBC_VERSION 2>/dev/null) || die "this system's C library is not glibc: set XLEVENT_LIB"
    here=${here#* }
    there=$(awk '$1 == "root" && $2 == "libc6" { sub(/[-+].*/, "", $3); print $3; exit }' "$cache/packages")
    [ "$here" != "$there" ] && [ "$(printf '%s\n' "$here" "$there" | sort -V | tail -n 1)" = "$here" ]
}

# The programs are built with Xen's headers and libraries of the machine's release.
# xlevent lies outside of that sysroot, so pkg-config must not put the sysroot's
# path before its own; Xen's libraries are where the compiler looks anyway.
sysroot_pkg_config() { with_sysroot env -u PKG_CONFIG_SYSROOT_DIR pkg-config "$@"; }

# stage_command SHARE DIRECTORY: the command too, if it was built, or installed,
# with the library of that directory.
stage_command() {
    local share=$1 directory=$2 command=$2/xlevent keeper=$2/libxlevent_run.so
    if [ -d "$directory/xlevent" ]; then
        command=$directory/../bin/xlevent keeper=$directory/xlevent/libxlevent_run.so
    fi
    [ -f "$command" ] && [ -f "$keeper" ] || return 0
    install -m 755 "$command" "$share/bin/"
    install -m 755 "$keeper" "$share/lib/"
    say "command: $command"
}

# stage_programs SHARE: fill lib/ and bin/. What is ours is built and installed where others would do so at the same time: one
# after the other.
stage_programs() {
    local share=$1 stage_lock
    mkdir -p "$stage"
    exec {stage_lock}>"$stage.lock"
    flock "$stage_lock"
    if [ -n "$library" ]; then
        [ -n "${XLEVENT_LIB:-}" ] || build_library
        [ -f "$library" ] || die "no library at $library"
        install -m 755 "$library" "$share/lib/libxlevent.so.1"
        say "library: $library"
        stage_command "$share" "$(dirname "$library")"
    else
        say "no library: xl runs as it is"
    fi
    stage_c_programs "$share"
    exec {stage_lock}>&-
    complete_libraries "$share"
}

# stage_c_programs SHARE: those that are linked with this tree's own are kept, and built again where a source is newer, or what
# make does not look at has changed: the library's headers, which sources there are.
stage_c_programs() {
    local share=$1 directory options built key kept=$stage.$event_lib
    [ -n "${XLEVENT_LIB:-}" ] || export PKG_CONFIG_PATH=$stage/lib/pkgconfig:${PKG_CONFIG_PATH:-}
    sysroot_pkg_config --exists "$event_lib" || die "pkg-config does not know $event_lib: set PKG_CONFIG_PATH"
    # A name without a space: make could not cope with one in its path.
    built=$(mktemp -d)
    if [ -z "${XLEVENT_LIB:-}" ]; then
        key=$({ cat "$top"/include/*.h "$top"/{examples,ctests,ctests/vm}/Makefile && ls "$top"/{examples,ctests,ctests/vm}/*.c; } | sha256sum)
        if [ "$key" != "$(cat "$kept/.key" 2>/dev/null)" ]; then
            rm -rf "$kept"
            mkdir -p "$kept"
            echo "$key" >"$kept/.key"
        fi
        rmdir "$built"
        ln -s "$kept" "$built"
    fi
    for directory in examples ctests/vm ctests; do
        options=(EVENTLIB="$event_lib" OUT="$built")
        # These use libxenlight's functions on events where they are linked with it.
        if [ "$directory" = ctests ] && [ "$event_lib" = xlevent ]; then
            options+=(CFLAGS="-O2 -g -DXLEVENT_STANDALONE")
        fi
        with_sysroot env -u PKG_CONFIG_SYSROOT_DIR make -s -j"$(nproc)" --no-print-directory -C "$top/$directory" "${options[@]}" ||
            { rm -r "$built"; die "could not build $directory"; }
    done
    cp "$built"/* "$share/bin/"
    rm -r "$built"
}

# Everything in lib/ and bin/ must find its libraries in dom0: add those that the
# image lacks, from the packages that dom0 is made of.
complete_libraries() {
    local share=$1 file name path root=$cache/root have
    have=$(cpio --quiet -t <"$cache/image/dom0.cpio" 2>/dev/null | sed -n 's|.*/||p')
    for file in "$share"/lib/* "$share"/bin/*; do
        [ -f "$file" ] || continue
        "$root/usr/lib64/ld-linux-x86-64.so.2" --inhibit-cache \
            --library-path "$share/lib:$root/$lib_dir" --list "$file" |
            awk '$2 == "=>" { print $1, $3 }' | while read -r name path; do
            [ "$path" != not ] || die "${file##*/} needs $name, which dom0 does not have"
            grep -qxF "$name" <<<"$have" || [ -e "$share/lib/$name" ] || cp -L "$path" "$share/lib/"
        done
    done
}
