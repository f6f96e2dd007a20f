/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * owner [exit|fork]: brings a host up, prints its directory, and waits to be killed; or exits with the host still up; or
 * forks a child first that waits for ever, and prints its number behind the directory.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <xensim.h>

int main(int argc, char **argv)
{
    xensim_host *host = xensim_up(0);
    pid_t child = 0;

    if (!host) {
        fprintf(stderr, "owner: %s\n", xensim_error());
        return 1;
    }
    if (argc > 1 && !strcmp(argv[1], "fork")) {
        child = fork();
        if (child == 0)
            for (;;)
                pause();
    }
    printf("%s %d\n", xensim_dir(host), (int)child);
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "exit"))
        return 0;
    for (;;)
        pause();
}
