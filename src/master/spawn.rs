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

/// Forks a child into `slot`. It first runs `forget_siblings`.
pub fn spawn(
    heritage: &Heritage,
    role: Role,
    slot: usize,
    forget_siblings: impl FnOnce(),
) -> anyhow::Result<(Pid, Commander)> {
    let (commander, commands) = command_channel()?;
    let epoch = heritage.slots.begin_life(slot);
    let mut ours = Some(commander);
    let run = |commands: Commands| match role {
        Role::Worker(number) => worker::run(heritage, Seat { number, slot, epoch }, commands),
        Role::Feed => feed::run(heritage, slot, commands),
    };
    let pid = fork::fork(|| {
        ours = None;
        forget_siblings();
        run(commands)
    })?;
    let commander = ours.expect("only the child gives it up");
    Ok((pid, commander))
}
