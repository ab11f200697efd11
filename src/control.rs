//! How a running server is asked about its cache: a datagram with the question and a descriptor to answer on, to a socket that only its
//! owner can reach.
//! Runs in: master (answers), offline (asks).
//!
//! ```text
//! catwalk cache ──"memory" + its end of a pair──► control ──► master
//!       ▲                                                       │
//!       └──────"ok" + arena, metrics page, both read-only───────┘        "clear": "ok", and a worker voids everything
//! ```
//! What is looked at is looked at in shared memory: nobody stops for it, and nothing can be stored there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::os::fd::wait_readable;
use crate::os::passing::{self, Message};
use crate::runtime_directory::{inside, RuntimeDirectory};

/// Name of the socket in the runtime directory.
const NAME: &str = "control";
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The shared memory, to look at.
    Memory,
    /// That every cached answer be voided.
    Clear,
}

impl Question {
    fn text(self) -> &'static str {
        match self {
            Question::Memory => "memory",
            Question::Clear => "clear",
        }
    }
}

/// The master's end.
pub struct Control(OwnedFd);

impl Control {
    /// Opens the socket; one that is left of an earlier server goes.
    ///
    /// # Errors
    /// What keeps it from being made.
    pub fn open(directory: &RuntimeDirectory) -> Result<Control> {
        let path = directory.file(NAME);
        let _ = std::fs::remove_file(&path);
        let socket = passing::listen(&path)
            .with_context(|| format!("opening {NAME} in {}", directory.path().display()))?;
        Ok(Control(socket))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The next question, and where its answer goes. What makes no sense, or comes from another user, is passed over.
    pub fn take(&self) -> Option<(Question, OwnedFd)> {
        let Message { text, mut fds, uid } = passing::receive(self.0.as_fd()).ok()?;
        let is_ours = uid.is_some_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw());
        let question = [Question::Memory, Question::Clear].into_iter().find(|q| q.text() == text)?;
        fds.pop().filter(|_| is_ours).map(|reply| (question, reply))
    }
}

/// Answers a question. Who no longer listens gets none.
pub fn answer(reply: &OwnedFd, text: &str, fds: &[BorrowedFd<'_>]) {
    if let Err(e) = passing::send(reply.as_fd(), text, fds) {
        log::debug!("control: {e}");
    }
}

/// Whether a server listens in a runtime directory.
pub fn is_answered(path: &Path) -> bool {
    std::fs::File::open(path).is_ok_and(|dir| passing::open(&inside(&dir, NAME)).is_ok())
}

/// Asks the server whose runtime directory is `path`.
///
/// # Errors
/// That there is no server, or what it says.
pub fn ask(path: &Path, question: Question) -> Result<Vec<OwnedFd>> {
    let none = || {
        format!(
            "no catwalk runs with {} as its runtime directory; --runtime-dir names another one",
            path.display()
        )
    };
    let dir = std::fs::File::open(path).with_context(none)?;
    let server = passing::open(&inside(&dir, NAME)).with_context(none)?;
    let (ours, theirs) = passing::pair().context("making sockets")?;
    passing::send(server.as_fd(), question.text(), &[theirs.as_fd()]).context("asking the server")?;
    drop(theirs);
    let [answered] = wait_readable([ours.as_fd()], PATIENCE);
    if !answered {
        bail!("the server has not answered within {PATIENCE:?}");
    }
    let Message { text, fds, .. } = passing::receive(ours.as_fd())
        .context("the server has no answer to that; is it of another version?")?;
    match text.as_str() {
        "ok" => Ok(fds),
        why => bail!("the server says: {why}"),
    }
}
