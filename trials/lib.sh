# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For trials of C programs: how they are built, with ctests/harness, and run in the two wirings.
#
#   alone    linked with libxlevent, and no libxenlight in the process
#   beside   linked with libxenlight, with LD_PRELOAD=libxlevent.so.1: as users have it
#
# What must be there is what trials/run gives: TRIAL_OUT, TRIAL_STAGE, TRIAL_RELEASE. CFLAGS and LIBS may be set.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PKG_CONFIG_PATH=$TRIAL_STAGE/lib/pkgconfig
failures=0

library_of() { if [ "$1" = alone ]; then echo xlevent; else echo xenlight; fi; }

# compile WIRING ARGUMENT...: the compiler, with that wiring's headers.
compile() {
    local wiring=$1
    shift
    # shellcheck disable=SC2046,SC2086 # options, one a word
    ${CC:-cc} -std=gnu99 -D_GNU_SOURCE ${CFLAGS:--O2 -g} -Wall -Wextra -Werror -pthread -DCTESTS_XENSIM \
        $([ "$wiring" != alone ] || echo -DXLEVENT_STANDALONE) $(pkg-config --cflags "$(library_of "$wiring")") \
        -I"$root/ctests" -I"$root/xensim/include" -idirafter "$root/include" "$@"
}

# build_for WIRING DIRECTORY PROGRAM ARGUMENT...: its sources, and more options. The harness is an archive: a program that has
# tests gets the frame's main() from there, another has its own.
build_for() {
    local wiring=$1 directory=$2 program=$3 harness=$2/harness
    shift 3
    if [ -z "${harness_built[$directory]:-}" ]; then
        rm -rf "$harness"
        mkdir -p "$harness"
        (cd "$harness" && compile "$wiring" -c "$root"/ctests/harness/*.c && ar rc harness.a ./*.o)
        harness_built[$directory]=yes
    fi
    # shellcheck disable=SC2046,SC2086 # options, one a word
    compile "$wiring" -o "$directory/$program" "$@" "$harness/harness.a" -L"$TRIAL_RELEASE" -lxensim \
        $(pkg-config --libs "$(library_of "$wiring")" xentoollog xenstore) -ldl ${LIBS:-}
}
declare -A harness_built=()

# build PROGRAM ARGUMENT...: in both wirings, TRIAL_OUT/WIRING/PROGRAM.
build() {
    local wiring
    for wiring in alone beside; do build_for "$wiring" "$TRIAL_OUT/$wiring" "$@"; done
}

# run_in WIRING PROGRAM [ARGUMENT...]   PRELOAD: what else is preloaded.
run_in() {
    local wiring=$1 program=$2 preload=${PRELOAD:-}
    shift 2
    [ "$wiring" = alone ] || preload="$TRIAL_STAGE/lib/libxlevent.so.1 $preload"
    CTESTS_COLUMN=$wiring LD_LIBRARY_PATH=$TRIAL_STAGE/lib:$TRIAL_RELEASE LD_PRELOAD=$preload \
        timeout --kill-after=10 3600 "$TRIAL_OUT/$wiring/$program" "$@"
}

# in_wiring WIRING PROGRAM [ARGUMENT...]: its lines, with the wiring's name, or LABEL, in those that count.
in_wiring() {
    local wiring=$1 program=$2 status=0
    run_in "$@" > >(sed -u "s/^\(PASS\|FAIL\) /&${LABEL:-$wiring}: /; s/^FIGURE /&${LABEL:-$wiring}, /") 2>"$TRIAL_OUT/$wiring.$program.stderr" || status=$?
    if [ "$status" -ne 0 ]; then
        failures=$((failures + 1))
        [ "$status" -eq 1 ] || echo "FAIL ${LABEL:-$wiring}: ${*:2}: ended with $status"
        sed 's/^/    /' "$TRIAL_OUT/$wiring.$program.stderr"
    fi
}

# is_found WHAT WORDS WIRING PROGRAM [ARGUMENT...]: what is spoilt on purpose must be found to be: a FAIL line of the
# program's own, with these words in it.
is_found() {
    local what=$1 words=$2 status=0
    shift 2
    run_in "$@" >"$TRIAL_OUT/spoilt" 2>&1 || status=$?
    if [ "$status" -eq 1 ] && grep -q "^FAIL .*$words" "$TRIAL_OUT/spoilt"; then
        echo "PASS $what is found"
    else
        echo "FAIL $what is found: it was not, and it ended with $status"
        sed 's/^/    /' "$TRIAL_OUT/spoilt"
        failures=$((failures + 1))
    fi
}
