// SPDX-License-Identifier: LGPL-2.1-or-later
//! The dynamic linker, asked for libraries and symbols at run time.
//!
//! A library found here is never closed: what was bound from it is kept for the life of the process.

use std::ffi::{CStr, CString, OsStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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

    /// What the program and the libraries that are loaded for everyone define, in the linker's order: libraries that were
    /// loaded privately are left out, and so is this one if it is one of those.
    pub fn program() -> Option<Self> {
        // SAFETY: NULL names the program itself.
        let handle = unsafe { libc::dlopen(std::ptr::null(), libc::RTLD_LAZY) };
        (!handle.is_null()).then_some(Library(handle))
    }

    /// The library that was loaded from this file, under this very name.
    pub fn of_file(file: &Path) -> Option<Self> {
        let name = CString::new(file.as_os_str().as_bytes()).ok()?;
        Self::dlopen(&name, libc::RTLD_LAZY | libc::RTLD_NOLOAD)
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

/// The program or a library of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// What [`object_of`] says of addresses inside.
    pub object: usize,
    /// It has the note that was asked for.
    pub has_note: bool,
}

/// The program and all libraries, also private ones, in the order in which they were loaded; and which of them have an ELF
/// note of this owner (its name without the NUL). Unlike a symbol, a note can be seen in everything that contains it,
/// whatever is exported.
pub fn objects(owner: &[u8]) -> Vec<Object> {
    let mut census = Census { owner, found: Vec::new() };
    // SAFETY: the callback has the type that dl_iterate_phdr wants, and `census` lives through the call.
    unsafe { libc::dl_iterate_phdr(Some(count_object), std::ptr::from_mut(&mut census).cast()) };
    // Not in the callback: it runs with one of the linker's locks held, and dladdr takes another.
    census.found.into_iter().map(|(inside, has_note)| Object { object: object_of(inside), has_note }).collect()
}

/// For [`objects`]: the objects seen so far, each by an address inside.
struct Census<'a> {
    owner: &'a [u8],
    found: Vec<(usize, bool)>,
}

unsafe extern "C" fn count_object(info: *mut libc::dl_phdr_info, _size: usize, census: *mut c_void) -> c_int {
    // SAFETY: the linker passes a valid structure, whose table stays while we are called; `census` is what `objects` gave it.
    let (info, census) = unsafe { (&*info, &mut *census.cast::<Census<'_>>()) };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let place = |address: u64| (info.dlpi_addr as usize).wrapping_add(address as usize);
    let loaded = |of: &libc::Elf64_Phdr| of.p_type == libc::PT_LOAD && of.p_flags & libc::PF_R != 0;
    let Some(first) = headers.iter().find(|header| loaded(header)) else { return 0 };
    let has_note = headers.iter().filter(|header| header.p_type == libc::PT_NOTE).any(|notes| {
        // A note that the file has and the memory hasn't would be none to read.
        let there = headers.iter().filter(|header| loaded(header)).any(|whole| {
            let inside = notes.p_vaddr.checked_sub(whole.p_vaddr);
            inside.is_some_and(|start| start.checked_add(notes.p_memsz).is_some_and(|end| end <= whole.p_memsz))
        });
        let bytes = || {
            let begin = place(notes.p_vaddr) as *const u8;
            // SAFETY: inside a part of the object that is mapped to be read, for as long as we are called.
            unsafe { std::slice::from_raw_parts(begin, notes.p_memsz as usize) }
        };
        there && has_note_of(census.owner, notes.p_align as usize, bytes())
    });
    census.found.push((place(first.p_vaddr), has_note));
    0
}

/// Whether one of these ELF notes is of this owner.
fn has_note_of(owner: &[u8], align: usize, mut notes: &[u8]) -> bool {
    let align = if align == 8 { 8 } else { 4 };
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(word) as usize)
    };
    while let (Some(name_size), Some(description_size)) = (word(notes, 0), word(notes, 4)) {
        let name_end = 12 + name_size;
        if notes.get(12..name_end).is_some_and(|name| name.strip_suffix(b"\0") == Some(owner)) {
            return true;
        }
        let next = (name_end.next_multiple_of(align) + description_size).next_multiple_of(align);
        notes = notes.get(next..).unwrap_or_default();
    }
    false
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
    fn a_note_is_found_among_others_and_nothing_beyond_the_end_is_read() {
        let note = |owner: &[u8], description: &[u8], align: usize| {
            let mut note = Vec::new();
            for word in [owner.len() + 1, description.len(), 7] {
                note.extend_from_slice(&u32::to_ne_bytes(word as u32));
            }
            note.extend_from_slice(owner);
            note.push(0);
            note.resize(note.len().next_multiple_of(align), 0);
            note.extend_from_slice(description);
            note.resize(note.len().next_multiple_of(align), 0);
            note
        };
        for align in [4, 8] {
            let notes =
                [note(b"GNU", &[1; 20], align), note(b"other", &[], align), note(b"ours", &[9; 3], align)].concat();
            assert!(has_note_of(b"ours", align, &notes));
            assert!(has_note_of(b"GNU", align, &notes));
            assert!(!has_note_of(b"our", align, &notes));
            for end in 0..notes.len() - 8 - align {
                assert!(!has_note_of(b"ours", align, &notes[..end]), "{end}");
            }
        }
        assert!(!has_note_of(b"ours", 4, &[0xff; 64]));
        assert!(!has_note_of(b"ours", 4, &[0; 64]));
    }

    #[test]
    fn every_object_of_the_process_is_seen() {
        let malloc = Library::process().symbol(c"malloc").expect("every process here has malloc");
        let (libc, program) = (object_of(malloc.addr().get()), object_of(objects as *const () as usize));
        let seen = objects(b"GNU");
        // The C library has a note of its build.
        assert!(seen.contains(&Object { object: libc, has_note: true }), "{seen:x?}");
        assert_eq!(seen.first().map(|first| first.object), Some(program));
        assert!(objects(b"no such owner").iter().all(|object| !object.has_note));
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
