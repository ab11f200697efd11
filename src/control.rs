//! How a running server is asked: a datagram with the question and a descriptor to answer on, to a socket that only its owner can reach.
//! Runs in: master (answers), offline (asks).
//!
//! ```text
//! catwalk cache ──"memory" + its end of a pair──► control ──► master
//!       ▲                                                       │
//!       └──────"ok" + arena, metrics page, both read-only───────┘        "clear": "ok", and workers void everything
//!
//! catwalk reload ──"reload"──► master: "begun" once the new settings were found good; "ok" when every worker has them, or why not
//! catwalk upgrade ──"upgrade"─► master: "begun"; "ok" when the new one serves, or why the old one goes on
//! ```
//! What is looked at is looked at in shared memory: nobody stops for it, and nothing can be stored there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::errno::Errno;

use crate::os::fd::wait_readable;
use crate::os::passing::{self, Message};
use crate::runtime_directory::{inside, RuntimeDirectory};

/// Name of the socket in the runtime directory.
const NAME: &str = "control";
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers: it is done; it has begun, and there is another answer to come. Anything else says why not.
pub const OK: &str = "ok";
pub const BEGUN: &str = "begun";

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The shared memory, to look at.
    Memory,
    /// That every cached answer be voided.
    Clear,
    /// That the settings be read anew.
    Reload,
    /// That another binary take over.
    Upgrade,
}

impl Question {
    const ALL: [Question; 4] = [Question::Memory, Question::Clear, Question::Reload, Question::Upgrade];

    fn text(self) -> &'static str {
        match self {
            Question::Memory => "memory",
            Question::Clear => "clear",
            Question::Reload => "reload",
            Question::Upgrade => "upgrade",
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
        let question = Question::ALL.into_iter().find(|q| q.text() == text)?;
        fds.pop().filter(|_| is_ours).map(|reply| (question, reply))
    }
}

/// Answers a question. Who no longer listens gets none.
pub fn answer(reply: &OwnedFd, text: &str, fds: &[BorrowedFd<'_>]) {
    if let Err(e) = passing::send(reply.as_fd(), text, fds) {
        log::debug!("control: {e}");
    }
}

/// The same to somebody who may have asked.
pub fn answer_to(asker: &Option<OwnedFd>, text: &str) {
    if let Some(reply) = asker {
        answer(reply, text, &[]);
    }
}

/// Whether a server listens in a runtime directory.
pub fn is_answered(path: &Path) -> bool {
    std::fs::File::open(path).is_ok_and(|dir| passing::open(&inside(&dir, NAME)).is_ok())
}

/// Asks the server whose runtime directory is `path`, and waits for its answer.
///
/// # Errors
/// That there is no server, or what it says.
pub fn ask(path: &Path, question: Question) -> Result<Vec<OwnedFd>> {
    Asked::new(path, question)?.answer(PATIENCE).map(|(_, fds)| fds)
}

/// A question that was asked.
pub struct Asked(OwnedFd);

impl Asked {
    /// Asks the server whose runtime directory is `path`.
    ///
    /// # Errors
    /// That there is no server.
    pub fn new(path: &Path, question: Question) -> Result<Asked> {
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
        Ok(Asked(ours))
    }

    /// The next answer, and descriptors that came with it; whether it is the last one.
    ///
    /// # Errors
    /// What the server says instead, or that it says nothing.
    pub fn answer(&self, patience: Duration) -> Result<(bool, Vec<OwnedFd>)> {
        let start = Instant::now();
        loop {
            let left = patience.saturating_sub(start.elapsed());
            wait_readable([self.0.as_fd()], left);
            match passing::receive(self.0.as_fd()) {
                Ok(Message { text, fds, .. }) => match text.as_str() {
                    OK => return Ok((true, fds)),
                    BEGUN => return Ok((false, fds)),
                    "" => bail!("the server has ended before it answered, or is of another version"),
                    why => bail!("the server says: {why}"),
                },
                Err(Errno::EAGAIN) if !left.is_zero() => {}
                Err(Errno::EAGAIN) => bail!("the server has not answered within {patience:?}"),
                Err(e) => bail!("the server has ended before it answered: {e}"),
            }
        }
    }
}
