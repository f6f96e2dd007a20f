/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* owner [exit]: brings a host up, prints its directory, and waits to be killed, or exits with the host still up. */
#include <stdio.h>
#include <unistd.h>

#include <xensim.h>

int main(int argc, char **argv)
{
    xensim_host *host = xensim_up(0);

    (void)argv;
    if (!host) {
        fprintf(stderr, "owner: %s\n", xensim_error());
        return 1;
    }
    printf("%s\n", xensim_dir(host));
    fflush(stdout);
    if (argc > 1)
        return 0;
    for (;;)
        pause();
}
