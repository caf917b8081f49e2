//! Mermaid, for Markdown.

use std::fmt::Write as _;

use super::drawing::{Drawing, NodeKind};

pub(super) fn render(drawing: &Drawing) -> String {
    let mut text = String::from("flowchart LR\n");
    for (at, node) in drawing.nodes.iter().enumerate() {
        let lines: Vec<String> = node.lines().iter().map(|line| escaped(line)).collect();
        let label = lines.join("<br>");
        // Writing to a string does not fail.
        let _ = match node.kind {
            NodeKind::Task => writeln!(text, "  n{at}(\"{label}\")"),
            NodeKind::Declaration(_) => writeln!(text, "  n{at}[[\"{label}\"]]"),
            NodeKind::Later => writeln!(text, "  n{at}(\"{label}\"):::later"),
            NodeKind::File => writeln!(text, "  n{at}[/\"{label}\"/]"),
        };
    }
    for (from, to) in &drawing.arrows {
        let arrow = if drawing.nodes[*to].kind == NodeKind::Later { "-.->" } else { "-->" };
        let _ = writeln!(text, "  n{from} {arrow} n{to}");
    }
    text.push_str("  classDef later stroke-dasharray: 5 5\n");
    text
}

/// Everything that Mermaid, Markdown or HTML could take for its own becomes a character code.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || " ./=,_-".contains(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "#{};", u32::from(c));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_end_a_label() {
        assert_eq!(escaped("a[x=\"1\"] <b>"), "a#91;x=#34;1#34;#93; #60;b#62;");
    }
}
