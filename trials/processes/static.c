/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program without any shared library. libxenctrl is loaded when a context is opened, which a static program can with the
 * glibc that it was linked with. Where there is no Xen it is told so.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl_event.h>
#include <xentoollog.h>

static int lines;

static void log_line(xentoollog_logger *to, xentoollog_level level, int errnoval, const char *context, const char *format,
                     va_list arguments)
{
    (void)to, (void)level, (void)errnoval, (void)context;
    fputs("    log: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    lines++;
}

int main(void)
{
    xentoollog_logger logger = { log_line, NULL, NULL };
    libxl_ctx *ctx = (libxl_ctx *)&logger;
    libxl_event *event;
    int rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), status;

    if (rc == 0 ? libxl_ctx_free(ctx) != 0 : rc != ERROR_FAIL || ctx != NULL || lines == 0)
        return 1;
    if (libxl_event_wait(NULL, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) != ERROR_INVAL || libxl_ctx_free(NULL) != 0)
        return 2;
    if (fork() == 0)
        return 0;
    return wait(&status) > 0 && status == 0 ? 0 : 3;
}
