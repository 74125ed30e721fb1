//! A Unix socket in the file system: whose it is while it is listened to, and afterwards.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

use crate::error::{SidecarError, listen_error};

/// A socket that is listened to. Dropped, it takes its path away, as long as that leads there: whoever
/// finds the path later should not find a dead socket, and another process's stays.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, which no other file gets while the socket is open.
    file: (u64, u64),
}

/// Listens at `path`. A socket that a killed process left behind is replaced, one that is listened to
/// is not.
///
/// # Errors
/// [`SidecarError::Listen`], [`SidecarError::NotASocket`].
pub(crate) async fn bind(path: &Path) -> Result<Socket, SidecarError> {
    let failed = listen_error(&path.display().to_string());
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if is_listened_to(path).await.map_err(&failed)? {
                return Err(failed(io::ErrorKind::AddrInUse.into()));
            }
            remove(path).map_err(&failed)?;
        }
        Ok(_) => {
            return Err(SidecarError::NotASocket {
                path: path.to_owned(),
            });
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(&failed)?;
    // Who may ask is said by the socket's owner and group.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(&failed)?;
    let file = file_at(path).map_err(&failed)?;
    Ok(Socket {
        listener,
        path: path.to_owned(),
        file,
    })
}

async fn is_listened_to(path: &Path) -> io::Result<bool> {
    match UnixStream::connect(path).await {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                // Whoever listened there stops just now, and takes the path away.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(false)
        }
        // Its queue is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// Nothing is at `path` afterwards.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Socket {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if file_at(&self.path).is_ok_and(|found| found == self.file) {
            let _ = remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_path_that_is_gone_by_now_is_nobodys() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("sidecar.sock");
        assert!(!is_listened_to(&path).await.unwrap());
        remove(&path).unwrap();
    }
}
