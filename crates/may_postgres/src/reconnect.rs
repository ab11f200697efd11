//! A client that comes back: hands out the live connection, and opens a new one after a loss.
//! Runs in: worker | offline.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{connect, Client, Config, Error};

/// Pause after the first failed attempt; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// One connection's place: at most one attempt at a time, with back-off between failures. Connecting
/// blocks, so it belongs to a thread of its own ([`Reconnect::maintain`]), not to the request path.
pub struct Reconnect {
    config: Config,
    state: Mutex<State>,
}

struct State {
    client: Option<Client>,
    last_error: Error,
    backoff: Duration,
    next_attempt: Instant,
}

impl State {
    /// Forgets a client whose connection has ended, but not why.
    fn lose(&mut self) {
        let why = self.client.take().and_then(|client| client.closed_because());
        let why = why.map_or_else(|| "the connection was lost".to_string(), |why| why.to_string());
        self.last_error = Error::Connect(why);
    }
}

impl Reconnect {
    pub fn new(config: Config) -> Reconnect {
        let state = State {
            client: None,
            last_error: Error::Connect("not connected yet".into()),
            backoff: BACKOFF_MIN,
            next_attempt: Instant::now(),
        };
        Reconnect { config, state: Mutex::new(state) }
    }

    /// The live client.
    ///
    /// # Errors
    /// The reason of the last failed attempt, at once, when there is none.
    pub fn client(&self) -> Result<Client, Error> {
        let mut state = self.state.lock();
        match &state.client {
            Some(client) if !client.is_closed() => Ok(client.clone()),
            Some(_) => {
                state.lose();
                Err(state.last_error.clone())
            }
            None => Err(state.last_error.clone()),
        }
    }

    /// Ends the connection, until it is asked for again: whoever uses it now may finish.
    pub fn rest(&self) {
        let mut state = self.state.lock();
        if state.client.take().is_some() {
            state.last_error = Error::Connect("no connection is wanted here at the moment".into());
        }
    }

    /// Opens the connection if it is gone and the back-off has passed. Blocks while connecting.
    /// Returns whether a connection is there.
    pub fn maintain(&self) -> bool {
        {
            let mut state = self.state.lock();
            if state.client.as_ref().is_some_and(|c| !c.is_closed()) {
                return true;
            }
            if state.client.is_some() {
                state.lose();
            }
            if Instant::now() < state.next_attempt {
                return false;
            }
        }
        let attempt = connect(&self.config);
        let mut state = self.state.lock();
        match attempt {
            Ok(client) => {
                state.client = Some(client);
                state.backoff = BACKOFF_MIN;
                true
            }
            Err(e) => {
                // Whatever the server said: there is no connection.
                state.last_error = Error::Connect(e.to_string());
                state.next_attempt = Instant::now() + state.backoff;
                state.backoff = (state.backoff * 2).min(BACKOFF_MAX);
                false
            }
        }
    }
}
