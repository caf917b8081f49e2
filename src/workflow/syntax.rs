//! From a text to a table of TOML, with what is wrong and where.

use toml::de::DeTable;

use super::problem::{Place, Problem, Problems, Sources};

/// What follows these is rarely a mistake of its own.
const SYNTAX_PROBLEMS_MAX: usize = 5;

/// The table that a text holds; `None`: it is not TOML, which was reported.
pub(crate) fn parse<'t>(
    file: u32,
    text: &'t str,
    sources: &Sources,
    problems: &mut Problems,
) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut twice = false;
    for error in errors.iter().take(SYNTAX_PROBLEMS_MAX) {
        // The keys of a table that is there twice are there twice as well.
        let duplicate = error.message().contains("duplicate key");
        if std::mem::replace(&mut twice, duplicate) && duplicate {
            continue;
        }
        let span = error.span().unwrap_or(0..0);
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let end = span.end.max(span.start + 1).min(text.len()).max(span.start);
        let place = Place { file, start: offset(span.start), end: offset(end) };
        problems.push(problem(sources, place, error.message(), text));
    }
    errors.is_empty().then(|| table.into_inner())
}

fn problem(sources: &Sources, place: Place, message: &str, text: &str) -> Problem {
    if message.contains("duplicate key") {
        let key = sources.slice(place);
        let problem = sources
            .problem(place, format!("`{key}` is there twice"))
            .labelled("again here")
            .help("a key, and a table such as [task.NAME], may stand once; rename or remove one");
        let line_start = text
            .get(..place.start as usize)
            .map_or(0, |before| before.rfind('\n').map_or(0, |newline| newline + 1));
        let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or("");
        let first = text.get(..line_start).and_then(|before| {
            let header = line.trim();
            before.find(header).filter(|_| header.starts_with('['))
        });
        return match first.and_then(|at| u32::try_from(at).ok()) {
            Some(start) => {
                let length = u32::try_from(line.trim().len()).unwrap_or(0);
                let first = Place { end: start + length, start, ..place };
                sources.also(problem, first, "first here")
            }
            None => problem,
        };
    }
    sources
        .problem(place, format!("this is not TOML: {}", message.replace('\n', "; ")))
        .help("strings need quotes, lists [ ], tables { } on one line or [name] above their keys")
}
