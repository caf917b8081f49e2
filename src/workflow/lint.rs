//! What is allowed in a script, and most likely not meant.

use super::declaration::Text;
use super::explain::within;
use super::problem::{Problem, Sources};

/// Values that stand in quotes of their own, although they are quoted for the shell already.
pub(super) fn quoted_values(sources: &Sources, text: &Text) -> Vec<Problem> {
    let script = text.value.as_ref();
    let mut found = Vec::new();
    for (start, _) in script.match_indices("{{") {
        let before = script.get(..start).and_then(|before| before.chars().next_back());
        let Some(quote) = before.filter(|c| matches!(c, '"' | '\'')) else { continue };
        let rest = script.get(start..).unwrap_or("");
        let Some((expression, after)) = rest.split_once("}}") else { continue };
        if !after.starts_with(quote) || expression.contains("raw") {
            continue;
        }
        let range = start - 1..start + expression.len() + 3;
        let problem = sources
            .problem(within(sources, text, range), "this value is quoted twice")
            .labelled("values in run are quoted for the shell already")
            .help("leave out the quotes around it, or write {{ … | raw }}");
        found.push(problem.warning());
    }
    found
}
