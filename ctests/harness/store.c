/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See store.h.
 */
#include "store.h"

#include <errno.h>
#include <stdarg.h>
#include <xenstore.h>

#include "assert.h"
#include "drive.h"

enum { TEXTS = 8, TEXT_MAX = 200 };

static char *next_text(void)
{
    static __thread char texts[TEXTS][TEXT_MAX];
    static __thread unsigned next;

    return texts[next++ % TEXTS];
}

const char *path_of(const char *format, ...)
{
    char *path = next_text();
    va_list arguments;

    va_start(arguments, format);
    CHECK(vsnprintf(path, TEXT_MAX, format, arguments) < TEXT_MAX);
    va_end(arguments);
    return path;
}

void put_node(const char *path, const char *value)
{
    put_bytes(path, value, strlen(value));
}

void put_number(const char *path, unsigned value)
{
    put_node(path, path_of("%u", value));
}

bool node_is(const char *path, const char *value)
{
    return holds_bytes(path, value, strlen(value));
}

static struct xs_handle *store(void)
{
    struct xs_handle *xs = xs_open(0);

    if (!xs)
        FAIL("xenstored: %s", strerror(errno));
    return xs;
}

bool has_node(const char *path)
{
    struct xs_handle *xs = store();
    void *value = xs_read(xs, XBT_NULL, path, NULL);
    bool has = value != NULL;

    if (!has && errno != ENOENT)
        FAIL("reading %s: %s", path, strerror(errno));
    free(value);
    xs_close(xs);
    return has;
}

void release_domain(uint32_t domid)
{
    struct xs_handle *xs = store();

    CHECK(xs_release_domain(xs, domid));
    xs_close(xs);
}

void put_home(uint32_t domid)
{
    struct xs_permissions permissions[] = { { 0, XS_PERM_NONE }, { domid, XS_PERM_READ } };
    const char *home = path_of("/local/domain/%u", (unsigned)domid);
    struct xs_handle *xs = store();

    CHECK(xs_write(xs, XBT_NULL, home, "", 0));
    CHECK(xs_set_permissions(xs, XBT_NULL, home, permissions, COUNT(permissions)));
    xs_close(xs);
}

const char *permissions_of(const char *path)
{
    struct xs_handle *xs = store();
    char *text = next_text();
    unsigned count = 0, i;
    size_t length = 0;
    struct xs_permissions *permissions = xs_get_permissions(xs, XBT_NULL, path, &count);

    if (!permissions) {
        CHECK(errno == ENOENT);
        strcpy(text, "-");
    }
    for (i = 0; permissions && i < count; i++) {
        static const char letters[] = "nrwb";

        length += (size_t)snprintf(text + length, TEXT_MAX - length, "%s%c%u", i ? "," : "",
                                   letters[permissions[i].perms & (XS_PERM_READ | XS_PERM_WRITE)], permissions[i].id);
        CHECK(length < TEXT_MAX);
    }
    free(permissions);
    xs_close(xs);
    return text;
}
