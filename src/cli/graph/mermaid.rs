//! Mermaid, for Markdown.

use super::drawing::{Drawing, NodeKind};

pub(super) fn render(drawing: &Drawing) -> String {
    let mut text = String::from("flowchart LR\n");
    for (at, node) in drawing.nodes.iter().enumerate() {
        let lines: Vec<String> = node.lines().iter().map(|line| escaped(line)).collect();
        let label = lines.join("<br>");
        let node = match node.kind {
            NodeKind::Task => format!("(\"{label}\")"),
            NodeKind::Declaration(_) => format!("[[\"{label}\"]]"),
            NodeKind::Later => format!("(\"{label}\"):::later"),
            NodeKind::File => format!("[/\"{label}\"/]"),
        };
        text.extend([format!("  n{at}{node}\n")]);
    }
    for (from, to) in &drawing.arrows {
        let arrow = if drawing.nodes[*to].kind == NodeKind::Later { "-.->" } else { "-->" };
        text.extend([format!("  n{from} {arrow} n{to}\n")]);
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
            escaped.extend([format!("#{};", u32::from(c))]);
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
