/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What libxlevent has beyond libxenlight: <xlevent.h>, with all its functions weak. A program that is linked with libxenlight
 * has them where libxlevent is preloaded; where they are missing, nobody calls them.
 *
 * The list is that of the ABI, which ctests/header/run holds to the header.
 */
#ifndef CTESTS_OURS_H
#define CTESTS_OURS_H

#include <xlevent.h>

#define TYPE(type, size, align)
#define FIELD(object, field, at, type)
#define VALUE(name, value)
#define FUNC(result, name, parameters) extern __typeof__(name) name __attribute__((weak));
#include "../header/extensions.def"
#undef TYPE
#undef FIELD
#undef VALUE
#undef FUNC

#endif
