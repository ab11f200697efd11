//! Every fork. The one file of this room that knows what its children run.
//! Runs in: master; the closure in worker and feed.

use nix::unistd::Pid;

use crate::feed;
use crate::heritage::Heritage;
use crate::os::commands::{command_channel, Commander, Commands};
use crate::os::fork;
use crate::worker::{self, Seat};

/// What a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves.
    Worker(usize),
    /// Follows the database's changes.
    Feed,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Worker(number) => write!(f, "worker {number}"),
            Role::Feed => write!(f, "the change feed"),
        }
    }
}

/// Forks a child into `slot`, which was taken for it, with the epoch of its life. It first runs `forget`.
pub fn spawn(
    heritage: &Heritage,
    role: Role,
    (slot, epoch): (usize, u32),
    forget: impl FnOnce(),
) -> anyhow::Result<(Pid, Commander)> {
    let (commander, commands) = command_channel()?;
    let mut ours = Some(commander);
    let run = |commands: Commands| match role {
        Role::Worker(number) => worker::run(heritage, Seat { number, slot, epoch }, commands),
        Role::Feed => feed::run(heritage, slot, commands),
    };
    let pid = fork::fork(|| {
        ours = None;
        forget();
        run(commands)
    })?;
    let commander = ours.expect("only the child gives it up");
    Ok((pid, commander))
}
