# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Reads C tests (ctests/*.c) and says, for each key of ctests/differences, a test that asserts both behaviours:
#
#     KEY PROGRAM TEST
#
# It is the first that names the key; else the first that uses a function of the same file that does. Definitions are found as
# in calls.awk.

FNR == 1 {
    inside = ""
    program = FILENAME
    sub(/.*\//, "", program)
    sub(/\.c$/, "", program)
}

/^[A-Z_]*TEST[A-Z_]*\([a-zA-Z_0-9]+/ {
    inside = $0
    sub(/^[A-Z_]*TEST[A-Z_]*\(/, "", inside)
    sub(/[,)].*/, "", inside)
    is_test = 1
    next
}
/^[a-z]/ && /\(/ && !/;$/ {
    inside = $0
    sub(/\(.*/, "", inside)
    sub(/.*[ *]/, "", inside)
    is_test = 0
    next
}
/^\}/ { inside = ""; next }
inside != "" {
    line = $0
    while (match(line, /OURS\("[a-z-]+"\)/)) {
        key = substr(line, RSTART + 6, RLENGTH - 8)
        line = substr(line, RSTART + RLENGTH)
        if (is_test && !(key in shown))
            shown[key] = program " " inside
        else if (!is_test && !((program, inside) in helps))
            helps[program, inside] = key
    }
    # Which test uses a function that may help.
    if (is_test) {
        gsub(/[^a-zA-Z_0-9]+/, " ")
        count = split($0, words, " ")
        for (i = 1; i <= count; i++)
            if ((program, words[i]) in helps && !(helps[program, words[i]] in by_help))
                by_help[helps[program, words[i]]] = program " " inside
    }
}

END {
    for (key in shown)
        print key, shown[key]
    for (key in by_help)
        if (!(key in shown))
            print key, by_help[key]
}
