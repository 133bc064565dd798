//! Files and folders that are ours alone, whatever the umask and whoever else is on the machine:
//! what stands in them decides who gets which version, and says who acted.
//!
//! A file is reached through the folder that was opened and looked at, never by following a
//! symbolic link, so that nobody leads a write of ours to another place.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::{getegid, geteuid};

/// Only we may enter.
const FOLDER_MODE: u32 = 0o700;
/// Only we may read and write.
const FILE_MODE: u32 = 0o600;
/// Names that are tried for a new folder: two of 128 random bits never meet.
const TRIES_MAX: usize = 8;

/// A folder that is open.
#[derive(Debug)]
pub struct Folder {
    folder: File,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at `path`, which is made where there is none, for files with `names`. One of
    /// ours with nothing else in it is closed to others. Of any other that others may write in is
    /// warned, for they may replace what is in it.
    ///
    /// # Errors
    /// When it cannot be made or opened, or is a symbolic link.
    pub fn open(path: &Path, names: &[&str]) -> Result<Self> {
        // Without what ends it: the last name is the link itself only where nothing follows.
        let path: PathBuf = path.components().collect();
        if std::fs::symlink_metadata(&path).is_err() {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&path)?;
        }
        let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
        let folder = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let folder = folder.map_err(|error| match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => is_link("the directory that it leads to"),
            _ => error,
        })?;
        let found = folder.metadata()?;
        // Somebody's home, or the folder for temporary files, is not ours to close.
        if found.uid() == geteuid().as_raw() && holds_only(&path, names)? {
            tighten(&folder, found.mode(), FOLDER_MODE, &path)?;
        } else if found.mode() & 0o002 != 0
            || found.mode() & 0o020 != 0 && found.gid() != getegid().as_raw()
        {
            tracing::warn!(
                directory = %path.display(),
                "others may write in this directory, and so replace what the gateway keeps there; \
                 name one of its own, with mode 0700"
            );
        }
        Ok(Self { folder, path })
    }

    /// Opens the file `name` to be read and appended to; it is made where there is none, or with
    /// `is_new` only where there is none. One that others may read is closed to them.
    ///
    /// # Errors
    /// When it cannot be opened, is no plain file, or belongs to somebody else.
    pub fn file(&self, name: &str, is_new: bool) -> Result<File> {
        let mut flags =
            OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A pipe in its place must not make us wait.
        flags |= OFlags::NONBLOCK;
        if is_new {
            flags |= OFlags::EXCL;
        }
        let opened = rustix::fs::openat(&self.folder, name, flags, Mode::from_raw_mode(FILE_MODE));
        let path = self.path.join(name);
        let file = File::from(opened.map_err(|error| match error {
            rustix::io::Errno::LOOP => is_link("a file of its own, or none"),
            other => Error::from(other),
        })?);
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{name} is no plain file; move it away"),
            ));
        }
        if found.uid() != geteuid().as_raw() {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "{name} belongs to user {}, not to the one that the gateway runs as ({}); chown \
                     it, or move it away",
                    found.uid(),
                    geteuid().as_raw()
                ),
            ));
        }
        tighten(&file, found.mode(), FILE_MODE, &path)?;
        Ok(file)
    }

    /// Closes the file `name` to others, if there is one of ours.
    pub fn close_to_others(&self, name: &str) {
        let exists = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
        // What cannot be opened is not ours to close; whoever needs it says so.
        if exists.is_ok() {
            let _ = self.file(name, false);
        }
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// When there is none, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    /// Gives the file `name` the name `other` beside its own.
    ///
    /// # Errors
    /// When `other` is there, or the file system has no second names.
    pub fn link(&self, name: &str, other: &str) -> Result<()> {
        let at = &self.folder;
        Ok(rustix::fs::linkat(at, name, at, other, AtFlags::empty())?)
    }

    /// Gives the file `name` the name `other` instead of its own, whatever had that.
    ///
    /// # Errors
    /// When it cannot.
    pub fn rename(&self, name: &str, other: &str) -> Result<()> {
        Ok(rustix::fs::renameat(&self.folder, name, &self.folder, other)?)
    }

    /// Makes names durable.
    ///
    /// # Errors
    /// When the disk does not.
    pub fn sync(&self) -> Result<()> {
        self.folder.sync_all()
    }
}

/// A new folder of ours in `parent`, by a name that nobody can know ahead.
///
/// # Errors
/// When it cannot be made.
pub fn fresh_folder(parent: &Path) -> Result<PathBuf> {
    for _ in 0..TRIES_MAX {
        let path = parent.join(format!("splitway-{:032x}", rand::random::<u128>()));
        match DirBuilder::new().mode(FOLDER_MODE).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Where this process may put what lives as long as it: what the service manager or the session
/// made for it, else the folder for temporary files.
#[must_use]
pub fn runtime_parent() -> PathBuf {
    let named = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].into_iter().filter_map(std::env::var_os);
    // systemd separates several by colons.
    let firsts = named.map(|named| {
        let bytes = named.as_encoded_bytes();
        let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
        Path::new(named.to_str().map_or(OsStr::new(""), |text| OsStr::new(&text[..end]))).to_owned()
    });
    let is_usable = |path: &PathBuf| {
        let found = std::fs::symlink_metadata(path);
        path.is_absolute()
            && found.is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
    };
    firsts.into_iter().find(is_usable).unwrap_or_else(std::env::temp_dir)
}

/// Whether nothing but files with `names`, and what a file system itself puts there, is at `path`.
fn holds_only(path: &Path, names: &[&str]) -> Result<bool> {
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        if !names.iter().any(|ours| name == *ours) && name != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn tighten(file: &File, mode: u32, most: u32, path: &Path) -> Result<()> {
    let mode = mode & 0o7777;
    if mode == most {
        return Ok(());
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(most))?;
    // What a strict umask took away is nobody's news.
    if mode & !most != 0 {
        tracing::info!(
            path = %path.display(),
            before = %format_args!("{mode:04o}"),
            now = %format_args!("{most:04o}"),
            "closed to others"
        );
    }
    Ok(())
}

fn is_link(instead: &str) -> Error {
    let why = format!(
        "is a symbolic link, and whoever may change it decides what is written; name \
                       {instead}"
    );
    Error::new(ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_made_is_ours_alone_and_what_was_open_is_closed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/state");
        let mut file = Folder::open(&path, &["journal"]).unwrap().file("journal", false).unwrap();
        file.write_all(b"one\n").unwrap();
        let name = path.join("journal");
        assert_eq!((mode(&path), mode(&name)), (0o700, 0o600));
        for (wide, wide_file) in [(0o755, 0o644), (0o777, 0o666), (0o2770, 0o660)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(wide)).unwrap();
            std::fs::set_permissions(&name, PermissionsExt::from_mode(wide_file)).unwrap();
            let folder = Folder::open(&path, &["journal"]).unwrap();
            folder.close_to_others("journal");
            folder.close_to_others("none");
            assert_eq!((mode(&path), mode(&name)), (0o700, 0o600), "{wide:o}");
        }
        assert!(!path.join("none").exists());
        let mut text = String::new();
        let folder = Folder::open(&path, &["journal"]).unwrap();
        folder.file("journal", false).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
        // A folder with other things in it is somebody's; the file in it is closed all the same.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&name, PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::write(path.join("notes"), "").unwrap();
        Folder::open(&path, &["journal"]).unwrap().file("journal", false).unwrap();
        assert_eq!((mode(&path), mode(&name)), (0o755, 0o600));
    }

    #[test]
    fn no_link_is_followed_and_no_pipe_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let precious = place.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        let path = place.path().join("state");
        let folder = Folder::open(&path, &[]).unwrap();
        symlink(&precious, path.join("link")).unwrap();
        symlink(place.path().join("absent"), path.join("dangling")).unwrap();
        rustix::fs::mkfifoat(&folder.folder, "pipe", Mode::from_raw_mode(0o600)).unwrap();
        std::fs::create_dir(path.join("folder")).unwrap();
        for (name, is_new) in [
            ("link", false),
            ("link", true),
            ("dangling", false),
            ("pipe", false),
            ("folder", false),
        ] {
            assert!(folder.file(name, is_new).is_err(), "{name}");
        }
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        assert!(!place.path().join("absent").exists());
        let link = place.path().join("other");
        symlink(&path, &link).unwrap();
        for ending in ["", "/", "/."] {
            let named = format!("{}{ending}", link.display());
            let error = Folder::open(Path::new(&named), &[]).unwrap_err().to_string();
            assert!(error.contains("is a symbolic link"), "{named}: {error}");
        }
    }

    #[test]
    fn fresh_folders_are_ours_and_differ() {
        let place = tempfile::tempdir().unwrap();
        let (one, two) = (fresh_folder(place.path()).unwrap(), fresh_folder(place.path()).unwrap());
        assert_ne!(one, two);
        assert_eq!((mode(&one), mode(&two)), (0o700, 0o700));
        assert!(fresh_folder(&place.path().join("absent")).is_err());
    }
}
