# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For trials of C programs in the two wirings.
#
#   alone    linked with libxlevent, and no libxenlight in the process
#   beside   linked with libxenlight, with LD_PRELOAD=libxlevent.so.1: as users have it

# Where the programs' sources are: here, unless the trial says otherwise.
sources=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
failures=0

# The programs of `sources`.
build_wirings() {
    mkdir -p "$TRIAL_OUT/alone" "$TRIAL_OUT/beside"
    PKG_CONFIG_PATH=$TRIAL_STAGE/lib/pkgconfig make -s --no-print-directory -C "$sources" all EVENTLIB=xlevent \
        OUT="$TRIAL_OUT/alone" XENSIM="$TRIAL_RELEASE"
    make -s --no-print-directory -C "$sources" all EVENTLIB=xenlight OUT="$TRIAL_OUT/beside" XENSIM="$TRIAL_RELEASE"
}

# in_wiring WIRING PROGRAM [ARGUMENT...]: its lines, with the wiring's name in those that count. PRELOAD: what else is
# preloaded.
in_wiring() {
    local wiring=$1 program=$2 preload=${PRELOAD:-} status=0
    shift 2
    [ "$wiring" = alone ] || preload="$TRIAL_STAGE/lib/libxlevent.so.1 $preload"
    LD_LIBRARY_PATH=$TRIAL_STAGE/lib:$TRIAL_RELEASE LD_PRELOAD=$preload \
        timeout --kill-after=10 3600 "$TRIAL_OUT/$wiring/$program" "$@" \
        > >(sed -u "s/^\(PASS\|FAIL\|FIGURE\) /&${LABEL:-$wiring}: /") 2>"$TRIAL_OUT/$wiring.$program.stderr" || status=$?
    if [ "$status" -ne 0 ]; then
        failures=$((failures + 1))
        [ "$status" -eq 1 ] || echo "FAIL ${LABEL:-$wiring}: $program $*: ended with $status"
        sed 's/^/    /' "$TRIAL_OUT/$wiring.$program.stderr"
    fi
}

# not_in_wiring WIRING WHAT PROGRAM [ARGUMENT...]: what is spoilt on purpose, and must be found to be: a FAIL line of the
# program's own.
not_in_wiring() {
    local wiring=$1 what=$2 program=$3 status=0
    shift 3
    LD_LIBRARY_PATH=$TRIAL_STAGE/lib:$TRIAL_RELEASE timeout --kill-after=10 3600 "$TRIAL_OUT/$wiring/$program" "$@" \
        >"$TRIAL_OUT/spoilt" 2>&1 || status=$?
    if [ "$status" -eq 1 ] && grep -q '^FAIL ' "$TRIAL_OUT/spoilt"; then
        echo "PASS $what"
    else
        echo "FAIL $what: it was not, and it ended with $status"
        sed 's/^/    /' "$TRIAL_OUT/spoilt"
        failures=$((failures + 1))
    fi
}
