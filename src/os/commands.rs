//! The channel from the master to a child: commands, some with descriptors. Its end tells of the master's death.
//! Runs in: both.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::os::passing::{self, Message};

/// What a master tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stop accepting, finish what is under way, end.
    Drain,
    /// A successor serves already: the same, and take the time that is granted.
    Retire,
    /// Accept from a listener no more.
    Release(usize),
    /// Void every cached answer.
    Clear,
}

/// What a child hears.
#[derive(Debug)]
pub enum Command {
    Do(Order),
    /// Accept from listener `number` too, over TCP and over TLS.
    Adopt {
        number: usize,
        http: Option<OwnedFd>,
        https: Option<OwnedFd>,
    },
    /// The master is gone: drain, and soon.
    Orphaned,
}

/// The master's end.
pub struct Commander(OwnedFd);

/// The child's end.
pub struct Commands(OwnedFd);

/// A channel; both ends close on exec.
pub fn command_channel() -> nix::Result<(Commander, Commands)> {
    let (ours, theirs) = passing::pair()?;
    Ok((Commander(ours), Commands(theirs)))
}

impl Commander {
    /// Sends an order; a child that is gone or doesn't read is dealt with elsewhere.
    pub fn send(&mut self, order: Order) {
        let text = match order {
            Order::Drain => "drain".to_string(),
            Order::Retire => "retire".to_string(),
            Order::Release(number) => format!("release {number}"),
            Order::Clear => "clear".to_string(),
        };
        let _ = passing::send(self.0.as_fd(), &text, &[]);
    }

    /// Has it accept from listener `number`. False: it can't be told now.
    pub fn adopt(
        &mut self,
        number: usize,
        http: Option<BorrowedFd<'_>>,
        https: Option<BorrowedFd<'_>>,
    ) -> bool {
        let kinds =
            [http.map(|_| " http"), https.map(|_| " https")].into_iter().flatten().collect::<String>();
        let fds: Vec<_> = http.into_iter().chain(https).collect();
        passing::send(self.0.as_fd(), &format!("adopt {number}{kinds}"), &fds).is_ok()
    }
}

impl Commands {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The next command. None when there is none yet; `Orphaned` when the master is gone.
    pub fn take(&mut self) -> Option<Command> {
        match passing::receive(self.0.as_fd()) {
            Ok(Message { text, .. }) if text.is_empty() => Some(Command::Orphaned),
            Ok(message) => Some(read(message)),
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // Its descriptors could not be had: this process has as many open as it may (MSG_CTRUNC, recvmsg(2)).
            Err(e @ (Errno::ENOBUFS | Errno::EMFILE | Errno::ENFILE)) => {
                log::error!("a listener could not be taken over: {e}; raise the descriptor limit");
                None
            }
            Err(_) => Some(Command::Orphaned),
        }
    }
}

/// What makes no sense is of a master that makes none: its child ends in good order.
fn read(message: Message) -> Command {
    let mut words = message.text.split(' ');
    let (verb, number) = (words.next(), words.next().and_then(|n| n.parse().ok()));
    let mut fds = message.fds.into_iter();
    match (verb, number) {
        (Some("retire"), _) => Command::Do(Order::Retire),
        (Some("clear"), _) => Command::Do(Order::Clear),
        (Some("release"), Some(number)) => Command::Do(Order::Release(number)),
        (Some("adopt"), Some(number)) => {
            let kinds: Vec<&str> = words.collect();
            let mut take = |kind| kinds.contains(&kind).then(|| fds.next()).flatten();
            let http = take("http");
            Command::Adopt { number, http, https: take("https") }
        }
        _ => Command::Do(Order::Drain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_arrive_whole_and_the_end_is_told() {
        let (mut commander, mut commands) = command_channel().unwrap();
        assert!(commands.take().is_none());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        commander.adopt(3, None, Some(listener.as_fd()));
        commander.adopt(4, Some(listener.as_fd()), None);
        commander.send(Order::Release(7));
        commander.send(Order::Retire);
        let first = commands.take().unwrap();
        assert!(matches!(first, Command::Adopt { number: 3, http: None, https: Some(_) }), "{first:?}");
        let second = commands.take().unwrap();
        assert!(matches!(second, Command::Adopt { number: 4, http: Some(_), https: None }), "{second:?}");
        assert!(matches!(commands.take(), Some(Command::Do(Order::Release(7)))));
        assert!(matches!(commands.take(), Some(Command::Do(Order::Retire))));
        drop(commander);
        assert!(matches!(commands.take(), Some(Command::Orphaned)));
    }
}
