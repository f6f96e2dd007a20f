/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See guest.h.
 *
 * The simulated host has no processor for guests, but it has their pages: one file, with two pages for each domain, of which
 * the second is that of its connection to xenstored. There is no event channel to ring either. xenstored looks at all rings
 * whenever it has something to do, so a request of the control domain's serves as a bell.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenstore.h>

#include <xen/io/xs_wire.h>

#include "assert.h"
#include "store.h"

enum { PAGE = 4096, REQUEST_MAX = sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX };

struct guest {
    struct xenstore_domain_interface *ring;
    struct xs_handle *bell;
    uint32_t request, answers;
};

struct guest *guest_open(uint32_t domid)
{
    const char *dir = getenv("XENSIM_DIR");
    struct guest *guest = calloc(1, sizeof *guest);
    int fd;

    CHECK(dir != NULL && guest != NULL);
    fd = open(path_of("%s/dev/gntdev", dir), O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    guest->ring = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, ((off_t)domid * 2 + 1) * PAGE);
    CHECK(guest->ring != MAP_FAILED);
    CHECK_EQUAL(close(fd), 0);
    guest->bell = xs_open(0);
    CHECK(guest->bell != NULL);
    return guest;
}

void guest_close(struct guest *guest)
{
    CHECK_EQUAL(munmap(guest->ring, PAGE), 0);
    xs_close(guest->bell);
    free(guest);
}

static void ring_bell(struct guest *guest)
{
    unsigned length;

    free(xs_read(guest->bell, XBT_NULL, "/", &length));
}

static uint32_t load(uint32_t *index)
{
    return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

/* Into the ring, in parts if it is full. */
static void send(struct guest *guest, const void *data, size_t length)
{
    struct xenstore_domain_interface *ring = guest->ring;
    const char *bytes = data;
    uint32_t end = ring->req_prod;

    while (length > 0) {
        if (end - load(&ring->req_cons) == XENSTORE_RING_SIZE) {
            ring_bell(guest);
            continue;
        }
        ring->req[MASK_XENSTORE_IDX(end)] = *bytes++;
        __atomic_store_n(&ring->req_prod, ++end, __ATOMIC_RELEASE);
        length--;
    }
}

static void receive(struct guest *guest, void *data, size_t length)
{
    struct xenstore_domain_interface *ring = guest->ring;
    char *bytes = data;
    uint32_t begin = ring->rsp_cons;

    while (length > 0) {
        if (begin == load(&ring->rsp_prod)) {
            ring_bell(guest);
            continue;
        }
        *bytes++ = ring->rsp[MASK_XENSTORE_IDX(begin)];
        __atomic_store_n(&ring->rsp_cons, ++begin, __ATOMIC_RELEASE);
        length--;
    }
}

/* A path, and the value behind it if there is one. */
static void ask(struct guest *guest, enum xsd_sockmsg_type type, const char *path, const void *value, size_t length)
{
    char request[REQUEST_MAX];
    size_t path_length = strlen(path) + 1;
    struct xsd_sockmsg head = { .type = type, .req_id = ++guest->request, .len = (uint32_t)(path_length + length) };

    CHECK(path_length + length <= XENSTORE_PAYLOAD_MAX);
    memcpy(request, &head, sizeof head);
    memcpy(request + sizeof head, path, path_length);
    if (length)
        memcpy(request + sizeof head + path_length, value, length);
    send(guest, request, sizeof head + path_length + length);
}

/* Answers come in the order of the requests; a guest here has no watches. */
static int answer(struct guest *guest)
{
    char text[XENSTORE_PAYLOAD_MAX + 1];
    struct xsd_sockmsg head;
    size_t i;

    receive(guest, &head, sizeof head);
    CHECK_EQUAL(head.req_id, ++guest->answers);
    CHECK(head.len <= XENSTORE_PAYLOAD_MAX);
    receive(guest, text, head.len);
    text[head.len] = 0;
    if (head.type != XS_ERROR)
        return 0;
    for (i = 0; i < COUNT(xsd_errors); i++)
        if (strcmp(xsd_errors[i].errstring, text) == 0)
            return xsd_errors[i].errnum;
    FAIL("xenstored says %s", text);
}

int guest_write_bytes(struct guest *guest, const char *path, const void *value, size_t length)
{
    ask(guest, XS_WRITE, path, value, length);
    return answer(guest);
}

int guest_write(struct guest *guest, const char *path, const char *value)
{
    return guest_write_bytes(guest, path, value, strlen(value));
}

int guest_remove(struct guest *guest, const char *path)
{
    ask(guest, XS_RM, path, NULL, 0);
    return answer(guest);
}

void guest_write_often(struct guest *guest, const char *path, const char *value, unsigned long times)
{
    /* As many at once as the ring has room for. */
    size_t size = sizeof(struct xsd_sockmsg) + strlen(path) + 1 + strlen(value);
    unsigned long at_once = XENSTORE_RING_SIZE / size;

    CHECK(at_once > 0);
    while (times > 0) {
        unsigned long batch = times < at_once ? times : at_once, i;

        for (i = 0; i < batch; i++)
            ask(guest, XS_WRITE, path, value, strlen(value));
        for (i = 0; i < batch; i++)
            CHECK_EQUAL(answer(guest), 0);
        times -= batch;
    }
}

void give_node(const char *path, uint32_t owner, uint32_t reader)
{
    struct xs_permissions permissions[] = { { owner, XS_PERM_NONE }, { reader, XS_PERM_READ } };
    struct xs_handle *xs = xs_open(0);

    CHECK(xs != NULL);
    if (!xs_set_permissions(xs, XBT_NULL, path, permissions, COUNT(permissions)))
        FAIL("%s: %s", path, strerror(errno));
    xs_close(xs);
}
