# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Reads C tests (ctests/*.c, ctests/harness/*.c) and says, for each function of ours, how many tests call it, directly or
# through other functions of these files:
#
#     FUNCTION TESTS ON_REAL_XEN
#
# `there` names the programs that are run on real Xen; of their tests, those are that command no domains.
#
# A definition begins at the start of a line and ends at the next line that begins with a closing brace; whatever is named in
# between, it uses. That is enough for C that is laid out as it is here: tables of callbacks are definitions too.

BEGIN {
    count = split(there, programs, " ")
    for (i = 1; i <= count; i++)
        runs_there["ctests/" programs[i] ".c"] = 1
}

FNR == 1 {
    inside = ""
    scope = FILENAME ~ /harness/ ? "" : FILENAME ":"
}

# A macro of the program's own for tests that command domains.
/^#define [A-Z_]*TEST[A-Z_]*\(name\) .*COMMANDS_DOMAINS/ {
    macro = $2
    sub(/\(.*/, "", macro)
    commanding[FILENAME, macro] = 1
}
# A test.
inside == "" && /^[A-Z_]*TEST[A-Z_]*\([a-zA-Z_0-9]+/ {
    macro = name = $0
    sub(/\(.*/, "", macro)
    sub(/^[A-Z_]*TEST[A-Z_]*\(/, "", name)
    sub(/[,)].*/, "", name)
    inside = scope name
    tests[inside] = macro != "DOMAIN_TEST" && !((FILENAME, macro) in commanding)
    if (/COMMANDS_DOMAINS/ || !(FILENAME in runs_there))
        tests[inside] = 0
    next
}
# A function, or a table.
inside == "" && /^[a-z]/ && !/;$/ && (/\(/ || /= \{$/) && !/^(extern|typedef|struct [a-z_]+ \{|enum)/ {
    name = $0
    sub(/ = \{$/, "", name)
    sub(/(\[[^]]*\])?$/, "", name)
    if (/\(/) {
        name = $0
        # The last word before the parameters; `void *(*f)(void *)` does not occur at the start of a line.
        sub(/\(.*/, "", name)
    }
    sub(/.*[ *]/, "", name)
    inside = (/^static/ ? scope : "") name
    note($0, inside)
    if (/\}$/)
        inside = ""
    next
}
# A table whose type is defined with it.
inside == "" && /^\} [a-z_]+(\[[^]]*\])? = \{$/ {
    name = $2
    sub(/\[.*/, "", name)
    inside = scope name
    next
}
# A function that a macro makes.
inside == "" && /^[A-Z_]+\([a-z_]+, .*\)$/ {
    name = $0
    sub(/^[A-Z_]+\(/, "", name)
    sub(/,.*/, "", name)
    note(substr($0, index($0, ",")), scope name)
}
inside != "" && /^\}/ { inside = ""; next }
inside != "" { note($0, inside) }
# Traits of a test may be on the next line.
inside in tests && /^ +[A-Z_ |0-9]+\)$/ && /COMMANDS_DOMAINS/ { tests[inside] = 0 }

function note(line, user,    words, count, i) {
    gsub(/"([^"\\]|\\.)*"/, " ", line)
    gsub(/[^a-zA-Z_0-9]+/, " ", line)
    count = split(line, words, " ")
    for (i = 1; i <= count; i++)
        if (words[i] ~ /^[a-zA-Z_]/)
            uses[user] = uses[user] " " words[i]
}

# Everything that a definition leads to: marks what is reached.
function follow(user, scope,    words, count, i, word) {
    count = split(uses[user], words, " ")
    for (i = 1; i <= count; i++) {
        word = words[i]
        if (word in reached)
            continue
        reached[word] = 1
        if ((scope word) in uses)
            follow(scope word, scope)
        if (word in uses)
            follow(word, scope)
    }
}

END {
    for (test in tests) {
        split("", reached)
        scope = test
        sub(/:.*/, ":", scope)
        follow(test, scope)
        for (word in reached)
            if (word ~ /^(libxl|xlevent)_/) {
                all[word]++
                real[word] += tests[test]
            }
    }
    for (word in all)
        print word, all[word], real[word]
}
