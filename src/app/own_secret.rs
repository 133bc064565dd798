//! The gateway's own secret, by which it signs cookies where none is named: kept in the state
//! directory, so that a restart knows its users again.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::config::sticky::fresh_secret;
use crate::rollout::journal::Place;

use super::handover;

/// The file's name in the state directory.
const FILE: &str = "sticky.secret";
/// 256 bits in hexadecimal, as many as HMAC-SHA-256 makes use of.
const SECRET_BYTES: usize = 64;

/// The secret kept at `place`, made when there is none yet. Where it cannot be kept it is this
/// process's alone, and the log says so.
pub(super) fn at(place: &Place) -> Box<[u8]> {
    // A predecessor's is known to users already.
    let passed = handover::passed_folder().and_then(|folder| read(&folder.join(FILE)).ok());
    let is_passed = passed.is_some();
    let fresh = passed.map_or_else(fresh_secret, Into::into);
    let kept = match place {
        Place::Memory => Err(Error::new(ErrorKind::Unsupported, "the state is in memory")),
        Place::Directory(directory) => keep(directory, &fresh),
    };
    match kept {
        Ok(secret) => secret.into(),
        Err(_) if is_passed => fresh,
        Err(error) => {
            tracing::warn!(
                %error,
                "sticky cookies are signed by a secret that ends with this process; set sticky.secret \
                 or sticky.secret_file"
            );
            fresh
        }
    }
}

/// Leaves it for a successor in the folder where that looks.
///
/// # Errors
/// When it cannot be written.
pub(super) fn pass(folder: &Path, secret: &[u8]) -> Result<()> {
    write(&folder.join(FILE), secret)
}

fn write(path: &Path, secret: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret)?;
    file.sync_all()
}

fn keep(directory: &Path, fresh: &[u8]) -> Result<Vec<u8>> {
    let path = directory.join(FILE);
    match read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Written aside and put in place whole: who reads it never sees half of it.
    let aside = directory.join(format!("{FILE}.{}", std::process::id()));
    let written = write(&aside, fresh).and_then(|()| std::fs::rename(&aside, &path));
    if written.is_err() {
        // What could not be made need not be removed.
        let _ = std::fs::remove_file(&aside);
    }
    written?;
    read(&path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(no_follow).open(path)?;
    let mut secret = Vec::new();
    file.take(SECRET_BYTES as u64 + 2).read_to_end(&mut secret)?;
    if secret.len() != SECRET_BYTES || !secret.iter().all(u8::is_ascii_hexdigit) {
        let message = format!("{} is no secret of ours; remove it", path.display());
        return Err(Error::new(ErrorKind::InvalidData, message));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_kept_to_ourselves() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Directory(folder.path().join("state"));
        let first = at(&place);
        assert_eq!(at(&place), first);
        let path = folder.path().join("state").join(FILE);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_ne!(at(&Place::Memory), first);
        // A link is not followed, and what is no secret is not taken for one.
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_ne!(at(&place), first);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "short").unwrap();
        assert_ne!(at(&place), at(&place));
    }
}
