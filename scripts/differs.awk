# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Reads C tests (ctests/*.c) and says which test asks for which difference (OURS in ctests/harness/check.h), directly or
# through other functions of its file:
#
#     KEY PROGRAM TEST
#
# A definition begins at the start of a line and ends at the next line that begins with a closing brace, as in calls.awk.
# Only tests that run with libxenlight alone count.

FNR == 1 {
    inside = ""
    program = FILENAME
    sub(/.*\//, "", program)
    sub(/\.c$/, "", program)
}
/^#define [A-Z_]*TEST[A-Z_]*\(name\) .*NOT_FOR_LIBXENLIGHT/ {
    macro = $2
    sub(/\(.*/, "", macro)
    of_ours[program, macro] = 1
}
inside == "" && /^[A-Z_]*TEST[A-Z_]*\([a-zA-Z_0-9]+/ {
    macro = name = $0
    sub(/\(.*/, "", macro)
    sub(/^[A-Z_]*TEST[A-Z_]*\(/, "", name)
    sub(/[,)].*/, "", name)
    inside = program " " name
    tests[++count] = inside
    left_out[inside] = macro == "TEST_OF_OURS" || (program, macro) in of_ours || /NOT_FOR_LIBXENLIGHT/
    next
}
inside == "" && /^[a-z]/ && !/;$/ && /\(/ && !/^(extern|typedef)/ {
    name = $0
    sub(/\(.*/, "", name)
    sub(/.*[ *]/, "", name)
    inside = program " " name
    next
}
inside != "" && /^\}/ { inside = ""; next }
inside in left_out && /^ +[A-Z_ |0-9]+\)$/ && /NOT_FOR_LIBXENLIGHT/ { left_out[inside] = 1 }
inside != "" {
    line = $0
    while (match(line, /OURS\("[a-z-]+"\)/)) {
        asks[inside] = asks[inside] " " substr(line, RSTART + 6, RLENGTH - 8)
        line = substr(line, RSTART + RLENGTH)
    }
    gsub(/"([^"\\]|\\.)*"/, " ")
    gsub(/[^a-zA-Z_0-9]+/, " ")
    uses[inside] = uses[inside] " " $0
}

# What a definition asks for, and all that it leads to.
function follow(user, program,    words, n, i) {
    if (user in reached)
        return
    reached[user] = 1
    n = split(asks[user], words, " ")
    for (i = 1; i <= n; i++)
        asked[words[i]] = 1
    n = split(uses[user], words, " ")
    for (i = 1; i <= n; i++)
        if ((program " " words[i]) in uses)
            follow(program " " words[i], program)
}

END {
    for (i = 1; i <= count; i++) {
        if (left_out[tests[i]])
            continue
        split("", reached)
        split("", asked)
        program = tests[i]
        sub(/ .*/, "", program)
        follow(tests[i], program)
        for (key in asked)
            print key, tests[i]
    }
}
