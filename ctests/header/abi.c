/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks a header against abi.def at compile time, in C11 and C++17. Which header it is depends on the search path:
 * with -DVIA_LIBXL what <libxl.h> includes, otherwise <libxl_event.h> itself; with -DWITH_EXTENSIONS <xlevent.h> too. Linked against a library, it also shows
 * that the library has every function.
 */

#ifdef __cplusplus
#include <cstddef>
#include <type_traits>
#else
#include <stddef.h>
#endif

#ifdef VIA_LIBXL
#ifdef __cplusplus
#include <netinet/in.h>
#include <sys/wait.h>
extern "C" {
#endif
#include <libxl.h>
#ifdef __cplusplus
}
#endif
#else
#include <libxl_event.h>
#endif

#ifdef WITH_EXTENSIONS
#include <xlevent.h>
#endif

#ifdef LIBXL_HAVE_NONCONST_EVENT_OCCURS_EVENT_ARG
#define EVENT_CONST
#else
#define EVENT_CONST const
#endif

#ifdef __cplusplus
#define ASSERT(condition, text) static_assert(condition, text)
#define ALIGNOF(type) alignof(type)
#define SAME_TYPE(object, field, type) std::is_same<decltype(((object *)0)->field), type>::value
#else
#define ASSERT(condition, text) _Static_assert(condition, text)
#define ALIGNOF(type) _Alignof(type)
#define SAME_TYPE(object, field, type) __builtin_types_compatible_p(__typeof__(((object *)0)->field), __typeof__(type))
#endif

/* Sizes. */
#ifdef __LP64__
#define TYPE(type, size, align) \
    ASSERT(sizeof(type) == (size), "size of " #type); \
    ASSERT(ALIGNOF(type) == (align), "alignment of " #type);
#define FIELD(object, field, at, type) ASSERT(offsetof(object, field) == (at), "offset of " #field " in " #object);
#else
#define TYPE(type, size, align)
#define FIELD(object, field, at, type)
#endif
#define VALUE(name, value) ASSERT((name) == (value), "value of " #name);
#define FUNC(result, name, parameters)
#include "abi.def"
#undef TYPE
#undef FIELD
#undef VALUE
#undef FUNC

/* Types of fields. */
#define TYPE(type, size, align)
#define FIELD(object, field, at, type) ASSERT(SAME_TYPE(object, field, type), "type of " #field " in " #object);
#define VALUE(name, value)
#define FUNC(result, name, parameters)
#include "abi.def"
#undef TYPE
#undef FIELD
#undef VALUE
#undef FUNC

/* Functions: each must be assignable, without a cast, to a pointer of the listed type. */
struct functions {
#define TYPE(type, size, align)
#define FIELD(object, field, at, type)
#define VALUE(name, value)
#define FUNC(result, name, parameters) result (*p_##name) parameters;
#include "abi.def"
#undef FUNC
};

extern const struct functions functions;
const struct functions functions = {
#define FUNC(result, name, parameters) name,
#include "abi.def"
#undef FUNC
};

/* What is a macro or a type of a function, and so fits none of the lists. */
ASSERT(LIBXL_EVENTMASK_ALL == ~0UL, "LIBXL_EVENTMASK_ALL");
ASSERT(sizeof(LIBXL_EVENTMASK_ALL) == sizeof(long), "type of LIBXL_EVENTMASK_ALL");
#ifdef __cplusplus
ASSERT((std::is_same<libxl_event_predicate, int(const libxl_event *, void *)>::value), "libxl_event_predicate");
#else
ASSERT(__builtin_types_compatible_p(libxl_event_predicate, int(const libxl_event *, void *)), "libxl_event_predicate");
#endif
#ifndef LIBXL_EVENT_H
#error "the include guard has another name"
#endif
