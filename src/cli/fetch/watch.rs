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
pub(in crate::cli) enum Manner {
    Bar,
    Lines,
    Quiet,
}

impl Manner {
    pub(in crate::cli) fn of(quiet: bool, terminal: &Terminal) -> Self {
        match (quiet, terminal.is_interactive()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Doing {
    /// One file that comes.
    Fetching,
    /// Files that come together: counted, not shown one by one.
    Many,
    /// One file that goes out.
    Sending,
    /// Files that go out together.
    ManyOut,
}

impl Doing {
    const fn is_many(self) -> bool {
        matches!(self, Self::Many | Self::ManyOut)
    }
}

pub(in crate::cli) struct Watch {
    doing: Doing,
    bar: ProgressBar,
    /// The last line, when lines are to be written.
    lines: Option<Mutex<Instant>>,
}

impl Watch {
    pub(in crate::cli) fn new(manner: Manner, doing: Doing) -> Self {
        let bar = match manner {
            Manner::Bar => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            Manner::Lines | Manner::Quiet => ProgressBar::hidden(),
        };
        let many = "{spinner} {pos} of {len} files [{wide_bar}] {eta} {msg}";
        let one = "{spinner} {binary_bytes} of {binary_total_bytes} [{wide_bar}] {binary_bytes_per_sec}, {eta} {msg}";
        if let Ok(style) = ProgressStyle::with_template(if doing.is_many() { many } else { one }) {
            bar.set_style(style.progress_chars("=> "));
        }
        let lines = (manner == Manner::Lines).then(|| Mutex::new(Instant::now()));
        Self { doing, bar, lines }
    }

    /// So many files are to come.
    pub(in crate::cli) fn expect(&self, files: u64) {
        self.bar.set_length(files);
    }

    /// One more of many files is in its place.
    pub(in crate::cli) fn arrived(&self) {
        self.bar.inc(1);
    }

    /// A file begins to go out.
    pub(in crate::cli) fn begin(&self, address: &str, bytes_in_all: u64) {
        if self.doing.is_many() {
            return;
        }
        self.bar.reset();
        self.bar.set_length(bytes_in_all);
        self.say(&format!("sending {address}, {}", bytes(bytes_in_all)));
    }

    /// Clears the bar.
    pub(in crate::cli) fn end(&self) {
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
        let where_to = if self.doing == Doing::Sending { "are sent" } else { "are here" };
        Terminal::new().note(format_args!("{}{all} {where_to}", bytes(position)));
    }
}

impl Progress for Watch {
    fn on_event(&self, event: &TransferEvent<'_>) {
        match event {
            TransferEvent::Opened { .. } | TransferEvent::Received { .. }
                if self.doing.is_many() => {}
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
            TransferEvent::Waiting { cause, wait, .. } => {
                self.say(&format!("{cause}; the next try is in {}", span(*wait)));
            }
            TransferEvent::Queued { cause, .. } => self.say(cause),
            TransferEvent::Resumed { source, offset } => {
                self.say(&format!("{source}: resumed at {}", bytes(*offset)));
            }
            TransferEvent::Replacing { source, found } => {
                self.say(&format!("{source} is sent instead of {found}"));
            }
            TransferEvent::Abandoned { source, cause } => {
                self.say(&format!("{source} is given up: {cause}"));
            }
            _ => {}
        }
    }
}
