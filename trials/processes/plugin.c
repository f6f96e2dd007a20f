/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A plugin with the library linked into it, statically, and nothing of that to be seen from outside but by this function. Also
 * linked into programs, which then call the copy that they were linked with, whatever has been preloaded.
 */
#include <stddef.h>
#include <string.h>

#include <libxl_event.h>

__attribute__((visibility("default"))) void *plugin_symbol(const char *name);

void *plugin_symbol(const char *name)
{
    static const char *const names[] = {
        "libxl_ctx_alloc",   "libxl_ctx_free",          "libxl_evenable_domain_death", "libxl_evdisable_domain_death", "libxl_event_wait",
        "libxl_event_check", "libxl_event_free", "libxl_childproc_setmode",    "libxl_postfork_child_noexec",
    };
    const size_t functions[] = {
        (size_t)libxl_ctx_alloc,         (size_t)libxl_ctx_free,    (size_t)libxl_evenable_domain_death, (size_t)libxl_evdisable_domain_death,
        (size_t)libxl_event_wait, (size_t)libxl_event_check, (size_t)libxl_event_free,
        (size_t)libxl_childproc_setmode, (size_t)libxl_postfork_child_noexec,
    };
    size_t i;

    for (i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return (void *)functions[i];
    return NULL;
}
