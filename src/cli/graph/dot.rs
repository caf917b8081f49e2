//! Graphviz.

use super::drawing::{Drawing, NodeKind};

pub(super) fn render(drawing: &Drawing) -> String {
    let mut text = String::from("digraph {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n");
    text.extend([format!("  label={};\n", quoted(std::slice::from_ref(&drawing.name)))]);
    for (at, node) in drawing.nodes.iter().enumerate() {
        let form = match node.kind {
            NodeKind::Task => "shape=box, style=rounded",
            NodeKind::Declaration(_) => "shape=box, style=rounded, peripheries=2",
            NodeKind::Later => "shape=box, style=\"rounded,dashed\"",
            NodeKind::File => "shape=note, color=gray50",
        };
        text.extend([format!("  n{at} [label={}, {form}];\n", quoted(&node.lines()))]);
    }
    for (from, to) in &drawing.arrows {
        let dashed = drawing.nodes[*to].kind == NodeKind::Later;
        let form = if dashed { " [style=dashed]" } else { "" };
        text.extend([format!("  n{from} -> n{to}{form};\n")]);
    }
    text.push_str("}\n");
    text
}

/// Lines as one label: quotes and backslashes are the only characters that mean anything in it.
fn quoted(lines: &[String]) -> String {
    let escape = |line: &String| -> String {
        let escaped = line.chars().flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c if c.is_control() => std::iter::once('\\').chain(c.escape_default()).collect(),
            c => vec![c],
        });
        escaped.collect()
    };
    format!("\"{}\"", lines.iter().map(escape).collect::<Vec<_>>().join("\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_end_a_label() {
        assert_eq!(quoted(&["a\"]\\b\nc".to_owned()]), r#""a\"]\\b\\nc""#);
    }
}
