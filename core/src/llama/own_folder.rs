//! The folder of the file that this code was loaded from: the library of a
//! binding, or the program. Any thread may ask.

use std::path::PathBuf;

/// The folder, or `None` where the system can't tell.
pub(super) fn own_folder() -> Option<PathBuf> {
    let file = own_library().filter(|path| path.is_absolute()).or_else(|| std::env::current_exe().ok())?;
    // A program is often started through a link, which has nothing beside it.
    // Not on Windows, where links are rare and the loader may refuse what a
    // resolved path looks like.
    let file = if cfg!(unix) { file.canonicalize().unwrap_or(file) } else { file };
    Some(file.parent()?.to_path_buf())
}

/// The file that holds this very function. Of a program it may be the name that
/// it was started by, which says nothing of the folder; that one is relative.
#[cfg(unix)]
fn own_library() -> Option<PathBuf> {
    use std::{
        ffi::{CStr, OsStr},
        os::unix::ffi::OsStrExt as _,
    };

    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here = own_library as fn() -> Option<PathBuf>;
    // SAFETY: any address may be asked for, and `info` is valid for writes.
    let found = unsafe { libc::dladdr(here as *const libc::c_void, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name ends in a zero byte and lives as long as the library,
    // which is this one.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

#[cfg(windows)]
fn own_library() -> Option<PathBuf> {
    use std::{
        ffi::{OsString, c_void},
        os::windows::ffi::OsStringExt as _,
    };

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetModuleHandleExW(flags: u32, address: *const c_void, module: *mut *mut c_void) -> i32;
        fn GetModuleFileNameW(module: *mut c_void, name: *mut u16, size: u32) -> u32;
    }
    /// The address is one inside the module; its count of uses stays.
    const FROM_ADDRESS: u32 = 0x4 | 0x2;

    let here = own_library as fn() -> Option<PathBuf>;
    let mut module = std::ptr::null_mut();
    // SAFETY: the address is one of this module's code, and `module` is valid
    // for writes.
    if unsafe { GetModuleHandleExW(FROM_ADDRESS, here as *const c_void, &raw mut module) } == 0 {
        return None;
    }
    // The longest path that Windows has.
    let mut name = vec![0_u16; 32_768];
    // SAFETY: the module is loaded, for it is this one, and the buffer has
    // 32,768 places.
    let length = unsafe { GetModuleFileNameW(module, name.as_mut_ptr(), 32_768) };
    let length = usize::try_from(length).ok().filter(|length| (1..name.len()).contains(length))?;
    Some(PathBuf::from(OsString::from_wide(&name[..length])))
}

#[cfg(not(any(unix, windows)))]
fn own_library() -> Option<PathBuf> {
    None
}

#[cfg(test)]
mod tests {
    use super::own_folder;

    #[test]
    fn a_program_knows_its_own_folder() {
        let program = std::env::current_exe().unwrap();
        assert_eq!(own_folder().unwrap().canonicalize().unwrap(), program.parent().unwrap().canonicalize().unwrap());
    }
}
