#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Say what becomes of a domain until it is dead, or of all domains.

    python.py [DOMID]

xlevent's one descriptor in asyncio's loop, and the library through ctypes:
nothing is compiled.  Any other loop of Python's that can wait for a descriptor
does as well.
"""
import asyncio
import ctypes
import signal
import sys

LIBRARY = "libxlevent.so.1"
LOGGERS = "libxentoollog.so.1"

# From xentoollog.h.
XTL_WARN = 7

# From libxl_event.h and xlevent.h.
LIBXL_VERSION = 0
LIBXL_DOMID_ANY = 0xFFFFFFFE
EVENT_TYPES = {1: "SHUTDOWN", 2: "DEATH", 40: "SUSPENDED", 41: "RUNNING", 42: "CREATED"}
SHUTDOWN, DEATH, CREATED = 1, 2, 42
XLEVENT_ALL_OTHERS = 0


class Details(ctypes.Union):
    """The beginning of what depends on an event's type. C aligns it for what else may stand there."""

    _fields_ = [("shutdown_reason", ctypes.c_uint8), ("pointer", ctypes.c_void_p)]


class Event(ctypes.Structure):
    """The beginning of libxl_event."""

    _fields_ = [
        ("link", ctypes.c_void_p * 2),
        ("domid", ctypes.c_uint32),
        ("domuuid", ctypes.c_uint8 * 16),
        ("for_user", ctypes.c_uint64),
        ("type", ctypes.c_int),
        ("u", Details),
    ]


HANDLE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(Event))


class Handler(ctypes.Structure):
    """struct xlevent_handler"""

    _fields_ = [("type", ctypes.c_uint32), ("handle", HANDLE)]


def declare(library):
    """Says what the functions take: without it ctypes would cut pointers to the size of an int."""
    pointer, out = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    arguments = {
        "libxl_ctx_alloc": [out, ctypes.c_int, ctypes.c_uint, pointer],
        "libxl_ctx_free": [pointer],
        "libxl_evenable_domain_state": [pointer, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, out],
        "xlevent_get_fd": [pointer],
        "xlevent_dispatch": [pointer, ctypes.POINTER(Handler), pointer],
    }
    for name, argtypes in arguments.items():
        function = getattr(library, name)
        function.argtypes, function.restype = argtypes, ctypes.c_int
    return library


def log_to_stderr():
    """Xen's logger: it says what goes wrong."""
    library = ctypes.CDLL(LOGGERS)
    library.xtl_createlogger_stdiostream.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint]
    library.xtl_createlogger_stdiostream.restype = ctypes.c_void_p
    stderr = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr")
    return library.xtl_createlogger_stdiostream(stderr, XTL_WARN, 0)


class XenError(Exception):
    """A function of the library has returned an error."""


class Xen:
    """One context, and what happens in it: a function is called with each event."""

    def __init__(self, on_event):
        self.library = declare(ctypes.CDLL(LIBRARY))
        self.ctx = ctypes.c_void_p()
        self._check("libxl_ctx_alloc", ctypes.byref(self.ctx), LIBXL_VERSION, 0, log_to_stderr())
        # Kept with the object: C has nothing but their address.
        self._handlers = Handler(XLEVENT_ALL_OTHERS, HANDLE(lambda _user, event: on_event(event.contents)))

    def _check(self, name, *arguments):
        result = getattr(self.library, name)(*arguments)
        if result < 0:
            raise XenError(f"{name}: error {result}")
        return result

    def enable(self, domid, types):
        """Asks for events of a domain, or of all."""
        evgen = ctypes.c_void_p()  # it ends with the context
        self._check("libxl_evenable_domain_state", self.ctx, domid, sum(1 << t for t in types), 0, ctypes.byref(evgen))

    def fileno(self):
        """What to wait for."""
        return self._check("xlevent_get_fd", self.ctx)

    def dispatch(self):
        """Does the library's work, and hands on what has happened."""
        self._check("xlevent_dispatch", self.ctx, ctypes.byref(self._handlers), None)

    def close(self):
        """No more events. Nobody may wait for the descriptor any more."""
        self.library.libxl_ctx_free(self.ctx)


async def main(arguments):
    """Until the domain is dead, or a signal comes."""
    over = asyncio.get_running_loop().create_future()

    def end(error=None):
        if not over.done():
            over.set_exception(error) if error else over.set_result(None)

    def on_event(event):
        reason = f" {event.u.shutdown_reason}" if event.type == SHUTDOWN else ""
        print(f"{event.domid} {EVENT_TYPES.get(event.type, event.type)}{reason}", flush=True)
        if event.type == DEATH and arguments:
            end()

    def on_readable():
        try:
            xen.dispatch()
        except XenError as error:
            end(error)

    loop = asyncio.get_running_loop()
    xen = Xen(on_event)
    if arguments:
        xen.enable(int(arguments[0]), EVENT_TYPES.keys() - {CREATED})
    else:
        xen.enable(LIBXL_DOMID_ANY, EVENT_TYPES.keys())
    loop.add_signal_handler(signal.SIGINT, end)
    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_reader(xen, on_readable)
    # What is there already doesn't make the descriptor readable.
    on_readable()
    try:
        await over
    finally:
        loop.remove_reader(xen)
        xen.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except (XenError, OSError) as problem:
        sys.exit(f"python.py: {problem}")
