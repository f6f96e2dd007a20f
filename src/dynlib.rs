// SPDX-License-Identifier: LGPL-2.1-or-later
//! The dynamic linker, asked for libraries and symbols at run time.
//!
//! A library found here is never closed: what was bound from it is kept for the life of the process.

use std::ffi::{CStr, CString, OsStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;

/// A place where symbols can be looked up.
#[derive(Debug, Clone, Copy)]
pub struct Library(*mut c_void);

// SAFETY: a handle is a number for dlsym, which may be called from any thread; it is never closed.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// All that the process has loaded for everyone, in the linker's order.
    pub fn process() -> Self {
        Library(libc::RTLD_DEFAULT)
    }

    /// What comes after this library in the linker's order: the functions that we stand in front of.
    pub fn next() -> Self {
        Library(libc::RTLD_NEXT)
    }

    /// Loads a library by its SONAME, for us alone.
    pub fn open(soname: &CStr) -> Option<Self> {
        Self::dlopen(soname, libc::RTLD_NOW | libc::RTLD_LOCAL)
    }

    /// A library that is loaded already, perhaps privately, whose file name starts with `prefix`.
    pub fn loaded(prefix: &str) -> Option<Self> {
        let mut search = Search { prefix, path: None };
        // SAFETY: the callback has the type that dl_iterate_phdr wants, and `search` lives through the call.
        unsafe { libc::dl_iterate_phdr(Some(find_by_prefix), std::ptr::from_mut(&mut search).cast()) };
        Self::dlopen(&search.path?, libc::RTLD_LAZY | libc::RTLD_NOLOAD)
    }

    fn dlopen(name: &CStr, flags: c_int) -> Option<Self> {
        // SAFETY: `name` ends in NUL. Loading runs the library's constructors: we only name Xen's own libraries.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        (!handle.is_null()).then_some(Library(handle))
    }

    /// The address of a function.
    pub fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is dlopen's, or one of the two special ones; `name` ends in NUL.
        NonNull::new(unsafe { libc::dlsym(self.0, name.as_ptr()) })
    }
}

/// Where the library or program that an address belongs to has been loaded: it tells one from another.
pub fn object_of(address: usize) -> usize {
    // SAFETY: any address may be asked about; all zero is a valid Dl_info, and nothing else is written.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        libc::dladdr(address as *const c_void, &mut info);
        info.dli_fbase.addr()
    }
}

/// The file that the code or data at this address was loaded from.
pub fn file_of(address: *const c_void) -> Option<PathBuf> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked about; `info` is room for the answer.
    if unsafe { libc::dladdr(address, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: all zero it was valid, and dladdr has filled it in.
    let name = unsafe { info.assume_init() }.dli_fname;
    // SAFETY: a C string that lives as long as the library, which is never closed, or null.
    (!name.is_null()).then(|| PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}

/// How many libraries the process has loaded so far, those that it has given up again included. While it is the same, what
/// was not there still isn't.
pub fn loads() -> u64 {
    let mut loads = 0u64;
    // SAFETY: the callback has the type that dl_iterate_phdr wants, and `loads` lives through the call.
    unsafe { libc::dl_iterate_phdr(Some(count_loads), std::ptr::from_mut(&mut loads).cast()) };
    loads
}

unsafe extern "C" fn count_loads(info: *mut libc::dl_phdr_info, _size: usize, loads: *mut c_void) -> c_int {
    // SAFETY: the linker passes a valid structure, with this field since glibc 2.4, and `loads` is what our caller gave it.
    unsafe { *loads.cast::<u64>() = (*info).dlpi_adds };
    // It is the same for each library.
    1
}

/// Looks up `$name` in `$library` as a function of type `$type`: an `Option`.
///
/// # Safety
/// The symbol, if it exists, must be a function of that type.
macro_rules! function {
    ($library:expr, $name:expr, $type:ty) => {
        $library.symbol($name).map(|address| std::mem::transmute::<*mut std::ffi::c_void, $type>(address.as_ptr()))
    };
}
pub(crate) use function;

struct Search<'a> {
    prefix: &'a str,
    path: Option<CString>,
}

unsafe extern "C" fn find_by_prefix(info: *mut libc::dl_phdr_info, _size: usize, search: *mut c_void) -> c_int {
    // SAFETY: the linker passes a valid structure, and `search` is what `loaded` gave it.
    let (name, search) = unsafe { ((*info).dlpi_name, &mut *search.cast::<Search<'_>>()) };
    if name.is_null() {
        return 0;
    }
    // SAFETY: a C string, not null, that lives through this call.
    let path = unsafe { CStr::from_ptr(name) };
    let file = path.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if file.starts_with(search.prefix.as_bytes()) {
        search.path = Some(path.to_owned());
        return 1;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_the_process_has_and_nothing_else() {
        assert!(Library::process().symbol(c"malloc").is_some());
        assert!(Library::process().symbol(c"libxl_no_such_function").is_none());
        let libc = Library::loaded("libc.so").expect("every process here has libc");
        assert!(libc.symbol(c"malloc").is_some());
        assert!(Library::loaded("libno-such-library.so").is_none());
        assert!(Library::open(c"libno-such-library.so.1").is_none());
    }

    #[test]
    fn a_function_is_of_a_file() {
        let malloc = Library::process().symbol(c"malloc").expect("every process here has malloc");
        let file = file_of(malloc.as_ptr()).expect("and a file that it comes from");
        assert!(file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libc.so")), "{file:?}");
        assert!(file_of(std::ptr::null()).is_none());
    }

    #[test]
    fn a_library_that_is_loaded_is_counted() {
        let before = loads();
        assert!(before > 0);
        assert!(Library::open(c"libutil.so.1").is_some());
        // Other tests may load some, too.
        assert!(loads() > before);
    }
}
