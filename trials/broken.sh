# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# A copy of the source that can be broken, for the trials `model` and `planted`: each fault is built in with a switch, and an
# environment variable switches one on. For what sources this: $root, $TRIAL_OUT, $switch (that variable's name), and `faults`,
# a file beside it with lines of
#
#   fault NAME WHO FILE TEXT INSTEAD     TEXT stands once in FILE; what it is replaced with asks `broken!(NAME)`. WHO must notice
#   also FILE TEXT INSTEAD               the same fault in another place
#
# It leaves: names and noticers, in their order; $copy, where the copy is; failed=1 where a fault's text has changed.

names=() noticers=()

# replace NAME FILE TEXT INSTEAD
replace() {
    TEXT=$3 INSTEAD=$4 perl -0777 -i -pe '
        my $found = () = /\Q$ENV{TEXT}\E/g;
        die "it stands there $found times\n" if $found != 1;
        s/\Q$ENV{TEXT}\E/$ENV{INSTEAD}/;' "$copy/$2" ||
        { echo "FAIL fault $1: its text isn't in $2 once: the code has changed, and the fault must too"; failed=1; }
}
fault() {
    names+=("$1") noticers+=("$2")
    replace "$1" "${@:3}"
}
also() { replace "${names[-1]}" "$@"; }

# make_copy FAULTS: what is as it was isn't built again.
make_copy() {
    local extra
    copy=$TRIAL_OUT/copy.new
    rm -rf "$copy"
    mkdir -p "$copy"
    (cd "$root" && cp -a Cargo.toml Cargo.lock build.rs src cli xensim include "$copy")
    for extra in benches examples tests README.md; do [ ! -e "$root/$extra" ] || cp -a "$root/$extra" "$copy"; done
    cat >>"$copy/src/sync.rs" <<END

/// Whether this fault is switched on.
pub(crate) fn is_broken(fault: &str) -> bool {
    static FAULT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    FAULT.get_or_init(|| std::env::var("$switch").ok()).as_deref() == Some(fault)
}
END
    sed -i '0,/^pub mod abi;/s//macro_rules! broken { ($fault:literal) => { crate::sync::is_broken($fault) } }\n\npub mod abi;/' "$copy/src/lib.rs"
    # shellcheck source=/dev/null
    source "$1"
    if diff -qr "$copy" "$TRIAL_OUT/copy" >/dev/null 2>&1; then
        rm -rf "$copy"
    else
        rm -rf "$TRIAL_OUT/copy"
        mv "$copy" "$TRIAL_OUT/copy"
    fi
    copy=$TRIAL_OUT/copy
}
