//! Ctrl-C and SIGTERM while files are moved: the first one lets the transfers end in order, the
//! second ends the program at once.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::exit::Exit;

/// Tells whether the program was asked to stop. Clones are told the same.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// From now on the signals are caught. A thread of their own waits for them, so that the second
    /// one is heard whatever everything else waits for.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
        drop(entered);
        let (sender, receiver) = watch::channel(false);
        let listener = std::thread::Builder::new().name("signals".to_owned());
        listener.spawn(move || hear(&runtime, signals, &sender))?;
        Ok(Self(receiver))
    }

    /// Ends with the first signal.
    pub(super) async fn requested(&mut self) {
        if self.0.wait_for(|is_requested| *is_requested).await.is_err() {
            // Nobody listens any more, so nobody will ask.
            std::future::pending::<()>().await;
        }
    }
}

#[expect(clippy::exit, reason = "the second signal ends the program whatever it is at")]
fn hear(runtime: &Runtime, signals: [Signal; 2], sender: &watch::Sender<bool>) {
    let [mut interrupt, mut terminate] = signals;
    runtime.block_on(async {
        for is_first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if is_first {
                sender.send_replace(true);
            }
        }
    });
    std::process::exit(Exit::Interrupted as i32);
}
