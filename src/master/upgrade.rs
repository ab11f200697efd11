//! An upgrade: another master is started beside this one, with the listeners and the shared memory, and takes over once its workers serve.
//! Until then this one goes on, whatever becomes of the other.
//! Runs in: master.
//!
//! ```text
//! old  USR2 ──fork, fork, exec──┐                         feed ends ──► MAINPID=new, "yours" ──► workers retire ──► end
//!        ◄── "pid N" ───────────┤                           ▲                     │
//! new                           └─► workers ──all serve──► "serving"              └─► feed, runtime directory, READY=1
//!
//! gone, "failed …", or nothing heard for too long before "serving": the old one goes on, and kills what is left of the new one
//! ```

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::heritage::Heritage;
use crate::limits::SUCCESSION_MAX;
use crate::os::{fd, fork};
use crate::succession;

/// Beyond every number that a process is born with.
const LINE_LEAST: i32 = 512;

/// A line to another master: words, one a line.
pub struct Line {
    stream: UnixStream,
    heard: Vec<u8>,
    is_open: bool,
}

impl Line {
    /// # Errors
    /// What keeps a socket from being used without waiting.
    pub fn new(stream: UnixStream) -> std::io::Result<Line> {
        stream.set_nonblocking(true)?;
        Ok(Line { stream, heard: Vec::new(), is_open: true })
    }

    /// To be watched, while the other one is there.
    pub fn watched(&self) -> Option<UnixStream> {
        self.stream.try_clone().ok().filter(|_| self.is_open)
    }

    /// Says a word. Whether the other one is gone shows when it is listened to.
    pub fn say(&mut self, word: &str) {
        let _ = self.stream.write_all(format!("{word}\n").as_bytes());
    }

    /// What was said since.
    pub fn words(&mut self) -> Vec<String> {
        let mut piece = [0; 1024];
        while self.is_open {
            match self.stream.read(&mut piece) {
                Ok(0) => self.is_open = false,
                Ok(len) => self.heard.extend_from_slice(&piece[..len]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.is_open = false,
            }
        }
        let whole = self.heard.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let words: Vec<u8> = self.heard.drain(..whole).collect();
        String::from_utf8_lossy(&words).lines().map(str::to_string).collect()
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether the other one is still there.
    pub fn is_open(&self) -> bool {
        self.is_open
    }
}

/// The master to come.
pub struct Successor {
    pub line: Line,
    pub pid: Option<Pid>,
    deadline: Instant,
    stage: Stage,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Starting,
    Serving,
    /// It has feed and directory.
    InPlace,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    /// It can take over.
    Serves,
    /// It has taken over.
    InPlace,
    /// This one goes on, and why.
    BackOut(String),
}

impl Successor {
    /// Starts `program` as this server's next master.
    ///
    /// # Errors
    /// What keeps a process from being made.
    pub fn start(heritage: &Heritage, program: &Path) -> Result<Successor> {
        let (ours, theirs) = UnixStream::pair().context("making sockets")?;
        let line = Line::new(ours).context("making sockets")?;
        // The one in between ends at once: the new master is nobody's child but the service manager's.
        fork::fork(|| match fork::fork(|| become_master(heritage, program, theirs)) {
            Ok(_) => 0,
            Err(_) => 1,
        })
        .context("making a process")?;
        let deadline = Instant::now() + SUCCESSION_MAX;
        Ok(Successor { line, pid: None, deadline, stage: Stage::Starting })
    }

    /// Listens, and looks at the clock.
    pub fn look(&mut self, now: Instant) -> Verdict {
        let before = self.stage;
        for word in self.line.words() {
            match word.split_once(' ').unwrap_or((&word, "")) {
                ("pid", number) => self.pid = number.parse().ok().map(Pid::from_raw),
                ("serving", _) => self.stage = self.stage.max(Stage::Serving),
                ("mine", _) => self.stage = Stage::InPlace,
                ("failed", why) => return Verdict::BackOut(why.to_string()),
                _ => {}
            }
        }
        match (before, self.stage) {
            (_, _) if self.stage > Stage::Starting && self.pid.is_none() => {
                Verdict::BackOut("it has not said which process it is".into())
            }
            (Stage::InPlace, _) => Verdict::Wait,
            (_, Stage::InPlace) => Verdict::InPlace,
            (Stage::Starting, Stage::Serving) => Verdict::Serves,
            _ if !self.line.is_open() => {
                Verdict::BackOut("it ended before it served; the log has its reason".into())
            }
            _ if now >= self.deadline => {
                Verdict::BackOut(format!("it has not taken over within {SUCCESSION_MAX:?}"))
            }
            _ => Verdict::Wait,
        }
    }

    /// Ends what is left of it; its workers see that their master is gone.
    pub fn give_up(self) {
        // One that has closed its line is gone already, and its number may be another's.
        if let Some(pid) = self.pid.filter(|_| self.line.is_open()) {
            fork::signal(pid, Signal::SIGKILL);
        }
    }
}

/// In the new master's process: says who it is, and becomes it. Returns only on failure.
fn become_master(heritage: &Heritage, program: &Path, theirs: UnixStream) -> i32 {
    // Out of the way of the numbers that the other one is born with: a failure has to be told too.
    let Ok(line) = fd::duplicate_from(theirs.as_fd(), LINE_LEAST) else { return 1 };
    let line = UnixStream::from(line);
    let say = |word: String| (&line).write_all(word.as_bytes());
    let _ = say(format!("pid {}\n", fork::own_pid()));
    let why = fork::exec_with(program, &succession::bequest(heritage, &theirs));
    let _ = say(format!("failed {} can't be run: {why}\n", program.display()));
    1
}

/// The master before this one.
pub struct Predecessor {
    pub line: Line,
    deadline: Instant,
    heard: Heard,
}

/// What it has said so far. One that is gone has said everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    Nothing,
    /// Its feed is gone, and the runtime directory free.
    Yours,
    /// The service manager knows who is the server now.
    Go,
}

impl Predecessor {
    /// # Errors
    /// As [`Line::new`].
    pub fn new(stream: UnixStream) -> std::io::Result<Predecessor> {
        let deadline = Instant::now() + SUCCESSION_MAX;
        Ok(Predecessor { line: Line::new(stream)?, deadline, heard: Heard::Nothing })
    }

    /// Listens. What has been heard now for the first time.
    pub fn listen(&mut self) -> Option<Heard> {
        let before = self.heard;
        for word in self.line.words() {
            match word.as_str() {
                "yours" => self.heard = self.heard.max(Heard::Yours),
                "go" => self.heard = Heard::Go,
                _ => {}
            }
        }
        if !self.line.is_open() {
            self.heard = Heard::Go;
        }
        (self.heard > before).then_some(self.heard)
    }

    pub fn heard(&self) -> Heard {
        self.heard
    }

    pub fn is_gone(&self) -> bool {
        !self.line.is_open()
    }

    /// Whether it has waited for this one too long.
    pub fn is_let_down(&self, now: Instant) -> bool {
        self.heard == Heard::Nothing && now >= self.deadline
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn successor() -> (Successor, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let deadline = Instant::now() + Duration::from_secs(1);
        (Successor { line: Line::new(ours).unwrap(), pid: None, deadline, stage: Stage::Starting }, theirs)
    }

    #[test]
    fn words_come_in_pieces_and_the_end_is_noticed() {
        let (mut successor, mut theirs) = successor();
        let now = Instant::now();
        theirs.write_all(b"pid 4").unwrap();
        assert_eq!((successor.look(now), successor.pid), (Verdict::Wait, None));
        theirs.write_all(b"2\nserving\n").unwrap();
        assert_eq!((successor.look(now), successor.pid), (Verdict::Serves, Some(Pid::from_raw(42))));
        assert_eq!(successor.look(now), Verdict::Wait);
        theirs.write_all(b"mine\n").unwrap();
        assert_eq!(successor.look(now), Verdict::InPlace);
        assert_eq!(successor.look(now + SUCCESSION_MAX), Verdict::Wait, "it is the server");
        drop(theirs);
        assert_eq!(successor.look(now), Verdict::Wait);
    }

    #[test]
    fn a_failure_and_silence_are_reasons_to_go_on() {
        let (mut failing, mut theirs) = successor();
        theirs.write_all(b"failed no such file\n").unwrap();
        assert_eq!(failing.look(Instant::now()), Verdict::BackOut("no such file".into()));
        let (mut silent, _theirs) = successor();
        assert_eq!(silent.look(Instant::now()), Verdict::Wait);
        assert!(matches!(silent.look(Instant::now() + Duration::from_secs(2)), Verdict::BackOut(_)));
    }

    #[test]
    fn whoever_is_gone_has_handed_over() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut predecessor = Predecessor::new(ours).unwrap();
        assert_eq!((predecessor.listen(), predecessor.is_gone()), (None, false));
        assert!(predecessor.is_let_down(Instant::now() + SUCCESSION_MAX));
        theirs.write_all(b"yours\n").unwrap();
        assert_eq!((predecessor.listen(), predecessor.listen()), (Some(Heard::Yours), None));
        assert!(!predecessor.is_let_down(Instant::now() + SUCCESSION_MAX));
        drop(theirs);
        assert_eq!((predecessor.listen(), predecessor.is_gone()), (Some(Heard::Go), true));
    }
}
