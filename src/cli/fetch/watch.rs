//! Shows one transfer: a bar where people watch, plain lines elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keelboat_staging::{Progress, TransferEvent};

use crate::cli::terminal::{Terminal, bytes, span};

/// How often a line tells how far it is, where there is no bar.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// How a transfer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Bar,
    Lines,
    Quiet,
}

pub(super) struct Watch {
    bar: ProgressBar,
    /// The last line, when lines are to be written.
    lines: Option<Mutex<Instant>>,
}

impl Watch {
    pub(super) fn new(manner: Manner) -> Self {
        let bar = match manner {
            Manner::Bar => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            Manner::Lines | Manner::Quiet => ProgressBar::hidden(),
        };
        let style = "{spinner} {binary_bytes} of {binary_total_bytes} [{wide_bar}] {binary_bytes_per_sec}, {eta} {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        let lines = (manner == Manner::Lines).then(|| Mutex::new(Instant::now()));
        Self { bar, lines }
    }

    /// Clears the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, text: &str) {
        if self.lines.is_some() {
            Terminal::new().note(format_args!("{text}"));
        } else {
            self.bar.println(text);
        }
    }

    fn say_position(&self, position: u64, length: Option<u64>) {
        let Some(lines) = &self.lines else { return };
        let mut last = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < LINE_PERIOD {
            return;
        }
        *last = Instant::now();
        let all = length.map(|length| format!(" of {}", bytes(length))).unwrap_or_default();
        Terminal::new().note(format_args!("{}{all} are here", bytes(position)));
    }
}

impl Progress for Watch {
    fn on_event(&self, event: &TransferEvent<'_>) {
        match event {
            TransferEvent::Opened { source, offset, length } => {
                if let Some(length) = length {
                    self.bar.set_length(*length);
                }
                self.bar.set_position(*offset);
                self.bar.reset_eta();
                self.bar.set_message("");
                let size = length.map(|length| format!(", {}", bytes(length))).unwrap_or_default();
                let from = if *offset > 0 {
                    format!(", from {} on", bytes(*offset))
                } else {
                    String::new()
                };
                self.say(&format!("fetching {source}{size}{from}"));
            }
            TransferEvent::Received { position, length } => {
                self.bar.set_position(*position);
                self.say_position(*position, *length);
            }
            TransferEvent::Waiting { source: _, cause, wait } => {
                self.say(&format!("{cause}; the next try is in {}", span(*wait)));
            }
            TransferEvent::Queued { cause, .. } => self.say(cause),
            TransferEvent::Abandoned { source, cause } => {
                self.say(&format!("{source} is given up: {cause}"));
            }
            _ => {}
        }
    }
}
