/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libuv: say what becomes of a domain until it is dead, or of all domains.
 *
 *     libuv [DOMID]
 *
 * xlevent's one descriptor in libuv's loop, beside signals.
 */
#include <signal.h>

#include <uv.h>
#include <xentoollog.h>
#include <xlevent.h>

#include "events.h"

struct program {
    libxl_ctx *ctx;
    uv_loop_t *loop;
    uv_poll_t xen;
    uv_signal_t interrupt, terminate;
    bool all;
    int rc;
};

static void close_handle(uv_handle_t *handle, void *unused)
{
    (void)unused;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* The loop ends when nothing is left in it. */
static void end(struct program *program)
{
    uv_walk(program->loop, close_handle, NULL);
}

static void on_event(void *user, const libxl_event *event)
{
    struct program *program = user;

    print_event(event);
    if (event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH && !program->all)
        end(program);
}

static const struct xlevent_handler handlers[] = { { XLEVENT_ALL_OTHERS, on_event } };

static void dispatch(struct program *program)
{
    int rc = xlevent_dispatch(program->ctx, handlers, program);

    if (rc < 0) {
        program->rc = rc;
        end(program);
    }
}

static void on_readable(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    dispatch(handle->data);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    (void)signum;
    end(handle->data);
}

static int run(struct program *program)
{
    uv_loop_t *loop = program->loop;

    if (uv_poll_init(loop, &program->xen, xlevent_get_fd(program->ctx)))
        return ERROR_FAIL;
    uv_signal_init(loop, &program->interrupt);
    uv_signal_init(loop, &program->terminate);
    program->xen.data = program->interrupt.data = program->terminate.data = program;
    if (uv_poll_start(&program->xen, UV_READABLE, on_readable) || uv_signal_start(&program->interrupt, on_signal, SIGINT) ||
        uv_signal_start(&program->terminate, on_signal, SIGTERM)) {
        program->rc = ERROR_FAIL;
        end(program);
    } else {
        /* What is there already doesn't make the descriptor readable. */
        dispatch(program);
    }
    uv_run(loop, UV_RUN_DEFAULT);
    return program->rc;
}

int main(int argc, char **argv)
{
    xentoollog_logger *logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    struct program program = { .loop = uv_default_loop(), .all = argc < 2 };
    int rc = libxl_ctx_alloc(&program.ctx, LIBXL_VERSION, 0, logger);

    if (!rc)
        rc = enable(program.ctx, argv[1]);
    if (!rc)
        rc = run(&program);
    if (rc)
        fprintf(stderr, "libuv: error %d\n", rc);
    /* The handles are closed by now, so that nothing waits for the descriptor any more. */
    libxl_ctx_free(program.ctx);
    xtl_logger_destroy(logger);
    uv_loop_close(program.loop);
    return rc ? 1 : 0;
}
