//! Where the program speaks: results on standard output, the rest on standard error, with colours
//! only where people see them.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A colour, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
    Blue,
    Dim,
    Bold,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Blue => "34",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

/// Standard output and error.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    colours: bool,
    interactive: bool,
}

/// Whether a result could not be written: there are several terminals in one process, and one
/// standard output.
static RESULT_LOST: AtomicBool = AtomicBool::new(false);

/// Whether a part of the result could not be written to standard output.
pub(crate) fn result_was_lost() -> bool {
    RESULT_LOST.load(Ordering::Relaxed)
}

fn note_loss(written: io::Result<()>) {
    // A reader that has gone away wants no more.
    if written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        RESULT_LOST.store(true, Ordering::Relaxed);
    }
}

impl Terminal {
    /// Colours only on a terminal, and never with `NO_COLOR`.
    pub(crate) fn new() -> Self {
        let interactive = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = io::stdout().is_terminal() && interactive && !no_color && !dumb;
        Self { colours, interactive: interactive && !dumb }
    }

    /// Whether people watch, so that bars make sense.
    pub(crate) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Whether colours are shown.
    pub(crate) fn has_colours(&self) -> bool {
        self.colours
    }

    /// The text in a colour, or as it is.
    pub(crate) fn paint(&self, colour: Colour, text: impl fmt::Display) -> String {
        if self.colours {
            format!("\u{1b}[{}m{text}\u{1b}[0m", colour.code())
        } else {
            text.to_string()
        }
    }

    /// A line of the result. A reader that has gone away is no error.
    #[expect(clippy::unused_self, reason = "speaking goes through the terminal")]
    pub(crate) fn line(&self, text: fmt::Arguments<'_>) {
        note_loss(writeln!(io::stdout().lock(), "{text}"));
    }

    /// Bytes of the result, as they are.
    #[expect(clippy::unused_self, reason = "speaking goes through the terminal")]
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        note_loss(out.write_all(bytes).and_then(|()| out.flush()));
    }

    /// A line beside the result.
    #[expect(clippy::unused_self, reason = "speaking goes through the terminal")]
    pub(crate) fn note(&self, text: fmt::Arguments<'_>) {
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// An error: the cause first, then a hint.
    pub(crate) fn error(&self, cause: impl fmt::Display, hint: Option<&str>) {
        self.note(format_args!("{} {cause}", self.paint(Colour::Red, "error:")));
        if let Some(hint) = hint {
            self.note(format_args!("{} {hint}", self.paint(Colour::Blue, " hint:")));
        }
    }
}

/// A number of bytes for people: `1.4 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let unit = (count.ilog2() / 10) as usize;
    #[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    let value = count as f64 / (1_u64 << (10 * unit)) as f64;
    format!("{value:.1} {}", UNITS[unit - 1])
}

/// A span of time for people: `850 ms`, `12.3 s`, `2 min 5 s`, `3 h 2 min`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A count with its noun: `1 task`, `2 tasks`.
pub(crate) fn counted(count: impl Into<u64>, noun: &str) -> String {
    let count = count.into();
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// A text on one line: control characters (a name may hold any) are shown escaped.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_short() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(1_536 << 20)],
            ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]
        );
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(span(Duration::from_millis(850)), "850 ms");
        assert_eq!(span(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(span(Duration::from_mins(182)), "3 h 2 min");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
    }
}
