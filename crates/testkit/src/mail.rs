//! A real mail server that keeps what it gets: aiosmtpd, which wants STARTTLS.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::Value;

/// A mail as it came.
#[derive(Clone, Debug)]
pub struct ReceivedMail {
    /// When it was known here.
    pub at: Instant,
    /// `to`, `subject`, `id`, `plain`, `html`, `secured`.
    pub mail: Value,
}

/// A running server. It ends with its value, or with the process that started it.
#[derive(Debug)]
pub struct MailServer {
    child: Child,
    port: u16,
    certificate: PathBuf,
    received: Arc<Mutex<Vec<ReceivedMail>>>,
}

impl MailServer {
    /// Starts one at a free port of 127.0.0.1; its certificate goes into `folder`. `repository` is
    /// where this repository is: its Python packages are installed once, into the cache folder.
    ///
    /// # Errors
    /// Where Python, its packages or the server are not to be had, with what was said.
    pub fn start(repository: &Path, folder: &Path) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
        let made = made.map_err(io::Error::other)?;
        let (certificate, key) = (folder.join("mail.pem"), folder.join("mail.key"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let mut child = Command::new(python(repository)?)
            .arg(repository.join("tests/mail/server.py"))
            .args([&certificate, &key])
            // It ends when nobody holds the other end any more.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(output).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let said: Value = serde_json::from_str(&first)?;
        let port = said["port"].as_u64().and_then(|port| port.try_into().ok());
        let received = Arc::<Mutex<Vec<ReceivedMail>>>::default();
        let keep = Arc::clone(&received);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let at = Instant::now();
                if let Ok(mail) = serde_json::from_str(&line) {
                    let mut received = keep.lock().unwrap_or_else(PoisonError::into_inner);
                    received.push(ReceivedMail { at, mail });
                }
            }
        });
        Ok(Self {
            child,
            port: port.ok_or_else(|| io::Error::other(format!("no port: {first:?}")))?,
            certificate,
            received,
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file with its certificate, which nobody has signed.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// What it got so far.
    pub fn received(&self) -> Vec<ReceivedMail> {
        let received = self.received.lock();
        received.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python(repository: &Path) -> io::Result<PathBuf> {
    let made = Command::new(repository.join("scripts/python-venv"))
        .arg(repository.join("tests/mail/requirements.txt"))
        .output()?;
    let folder = String::from_utf8_lossy(&made.stdout);
    match made.status.success() {
        true => Ok(Path::new(folder.trim()).join("bin/python")),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&made.stderr).into_owned(),
        )),
    }
}
