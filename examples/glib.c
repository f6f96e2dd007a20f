/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * glib: say what becomes of a domain until it is dead, or of all domains.
 *
 *     glib [DOMID]
 *
 * xlevent's one descriptor in GLib's main loop, and so in that of GTK and of
 * all others that are made of it, beside signals.
 */
#include <signal.h>

#include <glib-unix.h>
#include <glib.h>
#include <xentoollog.h>
#include <xlevent.h>

#include "events.h"

struct program {
    libxl_ctx *ctx;
    GMainLoop *loop;
    bool all;
    int rc;
};

static void on_event(void *user, const libxl_event *event)
{
    struct program *program = user;

    print_event(event);
    if (event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH && !program->all)
        g_main_loop_quit(program->loop);
}

static const struct xlevent_handler handlers[] = { { XLEVENT_ALL_OTHERS, on_event } };

static gboolean dispatch(gpointer user)
{
    struct program *program = user;
    int rc = xlevent_dispatch(program->ctx, handlers, program);

    if (rc < 0) {
        program->rc = rc;
        g_main_loop_quit(program->loop);
    }
    return G_SOURCE_REMOVE;
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer user)
{
    (void)fd;
    (void)condition;
    dispatch(user);
    return G_SOURCE_CONTINUE;
}

static gboolean on_signal(gpointer user)
{
    struct program *program = user;

    g_main_loop_quit(program->loop);
    return G_SOURCE_CONTINUE;
}

static int run(struct program *program)
{
    int fd = xlevent_get_fd(program->ctx);
    guint readable;

    if (fd < 0)
        return fd;
    readable = g_unix_fd_add(fd, G_IO_IN, on_readable, program);
    g_unix_signal_add(SIGINT, on_signal, program);
    g_unix_signal_add(SIGTERM, on_signal, program);
    /* What is there already doesn't make the descriptor readable: look once without it. */
    g_idle_add(dispatch, program);

    g_main_loop_run(program->loop);

    /* Out of the loop before the context closes the descriptor. */
    g_source_remove(readable);
    return program->rc;
}

int main(int argc, char **argv)
{
    xentoollog_logger *logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    struct program program = { .loop = g_main_loop_new(NULL, FALSE), .all = argc < 2 };
    int rc = libxl_ctx_alloc(&program.ctx, LIBXL_VERSION, 0, logger);

    if (!rc)
        rc = enable(program.ctx, argv[1]);
    if (!rc)
        rc = run(&program);
    if (rc)
        fprintf(stderr, "glib: error %d\n", rc);
    libxl_ctx_free(program.ctx);
    xtl_logger_destroy(logger);
    g_main_loop_unref(program.loop);
    return rc ? 1 : 0;
}
