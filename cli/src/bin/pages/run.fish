# SPDX-License-Identifier: LGPL-2.1-or-later
# What comes after `xlevent run` is a command line of its own; nothing else takes files.
complete -c xlevent -f
complete -c xlevent -n "__fish_xlevent_using_subcommand run" -x -a "(__fish_complete_subcommand --fcs-skip=2)"
