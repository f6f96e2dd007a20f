# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Debian's packages, fetched and unpacked without installing anything.
#
# A private apt with an empty status file resolves the whole closure, libc
# included, so the virtual machine depends on nothing that the host has, and
# may be of another Debian release.  The mirrors are the host's own.
#
# $cache/packages is the resolved list: "kind name version", one a line, where
# the kinds (root, sysroot, boot) are what is made from them; its first line says
# from what the list itself was made.  All else is made from it.  `vm build`
# resolves anew, `vm run` takes what is there.

# Its keys are those of all releases, also of those after the host's.
debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

private_apt() {
    local command=$1
    shift
    "$command" -o "Dir::Etc::SourceList=$cache/apt/sources" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State=$cache/apt" -o "Dir::State::Lists=$cache/apt/lists" \
        -o "Dir::State::status=$cache/apt/status" -o "Dir::Cache=$cache/apt/cache" \
        -o APT::Sandbox::User=root -o APT::Architecture=amd64 "$@"
}

# closure_of KIND PACKAGE...
closure_of() {
    local kind=$1
    shift
    private_apt apt-get -s install --no-install-recommends "$@" |
        awk -v kind="$kind" '$1 == "Inst" { print kind, $2, substr($3, 2) }'
}

resolve_packages() {
    local kernel
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
    : >"$cache/apt/status"
    "$top/scripts/mirrors" "$release_suite" "signed-by=$debian_keyring" >"$cache/apt/sources" || return 1
    private_apt apt-get update -qq || return 1
    kernel=$(private_apt apt-cache depends "$release_kernel_package" | awk '$1 == "Depends:" { print $2; exit }')
    [ -n "$kernel" ] || { say "no package $release_kernel_package in $release_suite"; return 1; }
    {
        echo "from $(list_stamp)"
        closure_of root "${release_dom0_packages[@]}" "${release_libvirt_packages[@]}"
        closure_of sysroot "${release_sysroot_packages[@]}"
        private_apt apt-cache policy "$kernel" "$release_hypervisor_package" |
            awk '/^[^ ].*:$/ { name = substr($1, 1, length($1) - 1) } $1 == "Candidate:" { print "boot", name, $2 }'
    } >"$cache/packages.new"
    [ "$(grep -c '^boot ' "$cache/packages.new")" = 2 ] && grep -q '^root .*xen-utils' "$cache/packages.new" &&
        grep -q '^sysroot libxen-dev' "$cache/packages.new" ||
        { say "the packages of Xen $release could not be resolved"; return 1; }
    mv "$cache/packages.new" "$cache/packages"
}

# Is there a list, and of what this release names today?
packages_are_resolved() { grep -qsxF "from $(list_stamp)" "$cache/packages"; }
list_stamp() { cat "$release_file" "$xenvm/lib/packages.sh" | sha256sum | cut -d' ' -f1; }

# download KIND: the packages of that kind, into apt's archive (those already
# there are not fetched again); prints their file names.
download_packages() {
    local archive=$cache/apt/cache/archives kind name version file wanted=()
    while read -r kind name version; do
        [ "$kind" = "$1" ] || continue
        # apt-get download writes ':' in a version as %3a.
        file=$archive/${name}_${version//:/%3a}
        if ! compgen -G "${file}_*.deb" >/dev/null; then
            wanted+=("$name=$version")
        fi
    done <"$cache/packages"
    if [ ${#wanted[@]} -gt 0 ]; then
        say "downloading ${#wanted[@]} packages"
        (cd "$archive" && private_apt apt-get -qq download "${wanted[@]}" >&2) ||
            die "could not download; \`xenvm/vm build\` looks for newer versions"
    fi
    while read -r kind name version; do
        [ "$kind" = "$1" ] || continue
        compgen -G "$archive/${name}_${version//:/%3a}_*.deb"
    done <"$cache/packages"
}

# Remove downloaded packages that the list no longer names.
prune_packages() {
    local file name wanted
    wanted=$(awk 'NF == 3 { gsub(":", "%3a", $3); print $2 "_" $3 }' "$cache/packages")
    for file in "$cache"/apt/cache/archives/*.deb; do
        name=${file##*/}
        grep -qxF "${name%_*}" <<<"$wanted" || rm -f "$file"
    done
}

# unpack KIND DIRECTORY
unpack_packages() {
    local file top files
    files=$(download_packages "$1")
    # One /usr, also for a release whose packages still have files in /lib.
    for top in bin sbin lib lib64; do
        mkdir -p "$2/usr/$top"
        ln -s "usr/$top" "$2/$top"
    done
    # base-files brings such links itself in newer releases: it must be first.
    { grep '/base-files_' <<<"$files" || true; grep -v '/base-files_' <<<"$files"; } | while read -r file; do
        # Unlike dpkg -x, this leaves a link to a directory alone.
        dpkg-deb --fsys-tarfile "$file" | tar -x --no-same-owner --keep-directory-symlink -C "$2"
    done
    keep_links_inside "$2"
}

# keep_links_inside DIRECTORY: a link from the root there would lead to the host's file of that name; bookworm's loader is one.
keep_links_inside() {
    local link
    find "$1/usr" -type l -lname '/*' | while read -r link; do
        ln -sfnr "$1$(readlink "$link")" "$link"
    done
}
