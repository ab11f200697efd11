//! Work with an order to it, done by several threads.
//! Runs in: offline.

use anyhow::{anyhow, Result};
use parking_lot::{Condvar, Mutex};

type Work<'a, C> = Box<dyn FnOnce(&C) -> Result<()> + Send + 'a>;

/// A piece of work, after others; `C` is what its thread has at hand, a connection for instance.
pub struct Task<'a, C> {
    pub name: String,
    /// Numbers of the tasks, in the list that is run, that must have ended before.
    pub after: Vec<usize>,
    pub work: Work<'a, C>,
}

impl<'a, C> Task<'a, C> {
    pub fn new(name: impl Into<String>, work: impl FnOnce(&C) -> Result<()> + Send + 'a) -> Task<'a, C> {
        Task { name: name.into(), after: Vec::new(), work: Box::new(work) }
    }

    pub fn after(mut self, tasks: impl IntoIterator<Item = usize>) -> Task<'a, C> {
        self.after.extend(tasks);
        self
    }
}

struct State<'a, C> {
    waiting: Vec<Option<Task<'a, C>>>,
    is_done: Vec<bool>,
    error: Option<anyhow::Error>,
}

impl<'a, C> State<'a, C> {
    /// The first task that waits for none, if there is one now; Err: there will be none any more.
    fn take(&mut self) -> Result<Option<(usize, Task<'a, C>)>, ()> {
        if self.error.is_some() || self.waiting.iter().all(Option::is_none) {
            return Err(());
        }
        let is_done = &self.is_done;
        let is_ready =
            |task: &Option<Task<'a, C>>| task.as_ref().is_some_and(|t| t.after.iter().all(|&n| is_done[n]));
        let ready = self.waiting.iter().position(is_ready);
        Ok(ready.and_then(|n| self.waiting[n].take().map(|task| (n, task))))
    }
}

/// Runs all tasks, earlier ones first where they can, on `jobs` threads; each makes its own `C`.
///
/// # Errors
/// The first one of a task: those under way are waited for, no other one begins.
pub fn run<'a, C>(tasks: Vec<Task<'a, C>>, jobs: usize, make: impl Fn() -> Result<C> + Sync) -> Result<()> {
    let is_done = vec![false; tasks.len()];
    let jobs = jobs.min(tasks.len());
    let state = Mutex::new(State { waiting: tasks.into_iter().map(Some).collect(), is_done, error: None });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                if let Err(e) = work(&state, &changed, &make) {
                    state.lock().error.get_or_insert(e);
                    changed.notify_all();
                }
            });
        }
    });
    state.into_inner().error.map_or(Ok(()), Err)
}

fn work<C>(state: &Mutex<State<'_, C>>, changed: &Condvar, make: &impl Fn() -> Result<C>) -> Result<()> {
    let mut own = None;
    loop {
        let (n, task) = {
            let mut state = state.lock();
            loop {
                match state.take() {
                    Ok(Some(found)) => break found,
                    Ok(None) => changed.wait(&mut state),
                    Err(()) => return Ok(()),
                }
            }
        };
        // A panic in one must not leave the others waiting for it.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let own = match &own {
                Some(own) => own,
                None => own.insert(make()?),
            };
            (task.work)(own)
        }));
        outcome.unwrap_or_else(|_| Err(anyhow!("{} panicked", task.name)))?;
        state.lock().is_done[n] = true;
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_before_what_it_comes_after() {
        let order = Mutex::new(Vec::new());
        let note = |n: usize| {
            let order = &order;
            move |_: &()| {
                order.lock().push(n);
                Ok(())
            }
        };
        let tasks = vec![
            Task::new("0", note(0)).after([2]),
            Task::new("1", note(1)).after([0]),
            Task::new("2", note(2)),
        ];
        run(tasks, 3, || Ok(())).unwrap();
        assert_eq!(*order.lock(), [2, 0, 1]);
    }

    #[test]
    fn an_error_or_a_panic_ends_all() {
        for fail in [|| -> Result<()> { anyhow::bail!("no") }, || panic!("no")] {
            let tasks = vec![
                Task::new("bad", move |_: &()| fail()),
                Task::new("never", |_: &()| panic!("it began")).after([0]),
            ];
            assert!(run(tasks, 2, || Ok(())).is_err());
        }
    }
}
