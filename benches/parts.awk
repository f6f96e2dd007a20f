# SPDX-License-Identifier: LGPL-2.1-or-later
# Where the instructions of a callgrind profile go: prints `part instructions` for each part that has any. The C library's
# copying and clearing is told apart, since callgrind counts `rep movsb`, one instruction, once for each byte.
#
# usage: awk -f parts.awk PROFILE

# "(7) name" gives a number a name, "(7)" stands for it later.
function name_of(kind, text,    id) {
    id = text
    sub(/\).*/, ")", id)
    if (text != id)
        names[kind, id] = substr(text, length(id) + 2)
    return names[kind, id]
}

function part() {
    if (object ~ /libxlevent/)
        return "xlevent"
    if (object ~ /libxensim/)
        return "simulation"
    if (object ~ /libxen(light|util)|libxlutil/)
        return "libxenlight"
    if (object ~ /libxenstore/)
        return "libxenstore"
    if (object ~ /libxen(ctrl|call|guest|toollog|foreignmemory|devicemodel|evtchn|gnttab|hypfs|toolcore)/)
        return "libxenctrl"
    if (object ~ /libc[.-]/ && function_name ~ /^_*(memset|memcpy|memmove|mempcpy)/)
        return "copying"
    if (object ~ /libc[.-]/ && function_name ~ /alloc|free|unlink_chunk|memalign/)
        return "malloc"
    if (object ~ /libc[.-]/)
        return "libc"
    return object ~ /ld-linux/ ? "linker" : "program"
}

/^ob=/ { object = name_of("ob", substr($0, 4)); next }
/^fn=/ { function_name = name_of("fn", substr($0, 4)); next }
# Names may be given where something is called, and used later.
/^cob=/ { name_of("ob", substr($0, 5)); next }
/^cfn=/ { name_of("fn", substr($0, 5)); next }
# The line after a call is what it cost inside, which is counted there.
/^calls=/ { getline; next }
/^[0-9+*-]/ { cost[part()] += $2 }
END { for (part_name in cost) if (cost[part_name]) print part_name, cost[part_name] }
