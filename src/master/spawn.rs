//! Every fork of a worker. The one file of this room that knows what a worker runs.
//! Runs in: master; the closure in worker.

use nix::unistd::Pid;

use crate::heritage::Heritage;
use crate::os::fd::{command_channel, Commander};
use crate::os::fork;
use crate::worker::{self, Seat};

/// Forks a worker for listener `number` into `slot`. The child first runs `forget_siblings`.
pub fn worker(
    heritage: &Heritage,
    number: usize,
    slot: usize,
    forget_siblings: impl FnOnce(),
) -> anyhow::Result<(Pid, Commander)> {
    let (commander, commands) = command_channel()?;
    let epoch = heritage.slots.begin_life(slot);
    let mut ours = Some(commander);
    let pid = fork::fork(|| {
        ours = None;
        forget_siblings();
        worker::run(heritage, Seat { listener: number, slot, epoch }, commands)
    })?;
    let commander = ours.expect("only the child gives it up");
    Ok((pid, commander))
}
