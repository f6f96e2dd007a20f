# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What all parts of xenvm share: talking to the user, the release in use, the
# cache and its lock, packages that the host needs.
#
# The cache of a release ($cache) holds
#   apt/     a private apt: lists, downloaded packages
#   root/    the packages of dom0, unpacked
#   sysroot/ headers and libraries to build programs for dom0 with, unpacked
#   boot/    the hypervisor's and the kernel's files, unpacked
#   image/   what QEMU starts, and the guests (replaced as a whole)
# Each part has a stamp beside it (NAME.stamp) that says from what it was made;
# a part without the right stamp is made anew.  Only the holder of the lock
# writes there.

say() { printf 'xenvm: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# All releases, the newest last.
all_releases() { (cd "$xenvm/releases" && printf '%s\n' *.sh) | sed 's/\.sh$//' | sort -V; }

# That of the host's distribution; where that has none of them, the newest.
default_release() {
    local host
    # shellcheck source=/dev/null
    host=$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-none}")
    (cd "$xenvm/releases" && grep -lx "release_suite=$host" ./*.sh | sed 's|^\./||; s/\.sh$//') || all_releases | tail -n 1
}

release=${XEN:-$(default_release)}
release_file=$xenvm/releases/$release.sh
[ -f "$release_file" ] || die "no Xen $release here; there is: $(all_releases | paste -sd ' ')"
# shellcheck source=xenvm/releases/4.17.sh
. "$release_file"

cache=${XLEVENT_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xlevent/xenvm-$release}

# step TEXT COMMAND...: say what begins, run it, say how long it took.
step() {
    local text=$1 begin=$SECONDS
    shift
    say "$text ..."
    "$@"
    say "$text: done in $((SECONDS - begin)) s"
}

# as_root COMMAND...
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need_host WHAT=PACKAGE...: install the packages whose programs (or files, given
# with their paths) are missing.
need_host() {
    local pair what missing=()
    for pair; do
        what=${pair%%=*}
        [ -f "$what" ] || PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing on this machine: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
}

lock_cache() {
    mkdir -p "$cache"
    exec {cache_lock}>"$cache/lock"
    if ! flock -n "$cache_lock"; then
        say "waiting for another xenvm that builds in $cache"
        flock "$cache_lock"
    fi
}

unlock_cache() {
    flock -u "$cache_lock"
    exec {cache_lock}>&-
}

# is_made PART STAMP: was this part made from exactly that?
is_made() { [ -e "$cache/$1" ] && [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$2" ]; }

# make_part PART STAMP COMMAND...: COMMAND fills the directory that it gets as its
# last argument; it takes the old part's place only when it is complete.
make_part() {
    local part=$1 stamp=$2
    shift 2
    rm -rf "$cache/$part.new" "$cache/$part.stamp"
    mkdir -p "$cache/$part.new"
    "$@" "$cache/$part.new"
    rm -rf "${cache:?}/$part"
    mv "$cache/$part.new" "$cache/$part"
    printf '%s\n' "$stamp" >"$cache/$part.stamp"
}
