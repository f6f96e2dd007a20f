# SPDX-License-Identifier: LGPL-2.1-or-later
# The table of what was aimed at and what was reached, in Markdown.
#
# usage: awk -f aims.awk [-v missed=1] FIGURES.tsv aims
#   missed=1: instead, what stands in the way where an aim is missed, as a list

BEGIN { FS = "\t" }

function ns(v) { return v >= 1e6 ? sprintf("%.1f ms", v / 1e6) : v >= 1e3 ? sprintf("%.1f µs", v / 1e3) : v " ns" }
function big(v) { return v >= 1e6 ? sprintf("%.2f M", v / 1e6) : v >= 1e4 ? sprintf("%.1f k", v / 1e3) : v "" }

# A figure as it is compared; "" if there is none.
function figure(column,    k) {
    k = operation SUBSEP n SUBSEP column
    if (!(k in value))
        return ""
    if (kind == "instructions")
        return instructions[k]
    if (kind == "hypercalls")
        return hypercalls[k]
    if (kind == "value")
        return value[k]
    k = operation SUBSEP n SUBSEP "real"
    if (kind == "ratio")
        return value[k] ? value[operation, n, column] / value[k] : ""
    return instructions[k] ? instructions[operation, n, column] / instructions[k] : ""
}

# The same for people.
function shown(v) {
    if (v == "")
        return ""
    v += 0
    if (kind ~ /ratio/)
        return sprintf("%.3f", v)
    return kind == "value" && unit[operation, n, "real"] == "ns" ? ns(v) : big(v)
}

function misses(v, aim) { return aim != "-" && v != "" && v + 0 > aim + 0 }
function cell(v, aim) { return misses(v, aim) ? "**" shown(v) "**" : shown(v) }
function trim(text) { gsub(/^ +| +$/, "", text); return text }

FNR == NR {
    if (FNR > 1) {
        value[$1, $2, $3] = $4
        unit[$1, $2, $3] = $5
        hypercalls[$1, $2, $3] = $6
        instructions[$1, $2, $3] = $7
    }
    next
}
/^#/ { next }
/^why: / {
    if (missed && (misses(alone, alone_aim) || misses(beside, beside_aim)))
        printf "- %s: %s\n", text, substr($0, 6)
    next
}
{
    split($0, field, "|")
    operation = trim(field[1]); n = trim(field[2]); kind = trim(field[3])
    alone_aim = trim(field[4]); beside_aim = trim(field[5]); text = trim(field[6])
    alone = figure("alone"); beside = figure("beside")
    if (missed)
        next
    if (!rows++) {
        print "| | libxenlight | xlevent alone | beside libxenlight | aim |"
        print "|---|--:|--:|--:|--:|"
    }
    aim = alone_aim == "-" ? (beside_aim == "-" ? "" : shown(beside_aim)) : shown(alone_aim)
    if (alone_aim != "-" && beside_aim != alone_aim)
        aim = aim ", " shown(beside_aim)
    printf "| %s | %s | %s | %s | %s |\n", text, shown(figure("real")), cell(alone, alone_aim), cell(beside, beside_aim), aim
}
