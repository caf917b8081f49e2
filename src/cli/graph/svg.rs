//! A picture that needs no other program.

use super::drawing::{Drawing, Node, NodeKind};
use super::layout::{Layout, layout};

/// All in pixels.
const CHARACTER: f64 = 7.3;
const LINE: f64 = 16.0;
const PADDING: f64 = 9.0;
const GAP: f64 = 14.0;
const LAYER_GAP: f64 = 56.0;
const MARGIN: f64 = 16.0;

/// Longer names are cut in the middle, since they differ at their ends; the whole name is in the node's title.
const LABEL_MAX: usize = 44;

const HEAD: &str = r##"<style>text { font: 12px ui-monospace, monospace; fill: #1c2733 }
rect { fill: #eef4fb; stroke: #41688f } .file { fill: #fbfaf3; stroke: #a39a6b }
.later { stroke-dasharray: 5 4; fill: #fff } .many { stroke-width: 3 }
path { fill: none; stroke: #6b7a89 } path.later { fill: none }</style>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><polygon points="0,0 8,4 0,8" fill="#6b7a89"/></marker></defs>
"##;

pub(super) fn render(drawing: &Drawing) -> String {
    let sizes: Vec<(f64, f64)> = drawing.nodes.iter().map(size).collect();
    let heights: Vec<f64> = sizes.iter().map(|(_, height)| *height).collect();
    let layout = layout(&heights, &drawing.arrows, GAP);
    let columns = Columns::of(&layout, &sizes);
    let bottom = layout.places.iter().enumerate();
    let bottom = bottom.map(|(at, place)| place.y + heights.get(at).unwrap_or(&0.0) / 2.0);
    let height = bottom.fold(0.0, f64::max) + 2.0 * MARGIN;
    let width = columns.end + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<title>{}</title>\n{HEAD}",
        escaped(&drawing.name)
    );
    text.push_str("<rect width=\"100%\" height=\"100%\" style=\"fill:#fff;stroke:none\"/>\n");
    for (way, (_, to)) in layout.ways.iter().zip(&drawing.arrows) {
        let class =
            if drawing.nodes[*to].kind == NodeKind::Later { " class=\"later\"" } else { "" };
        let path = curve(way, &layout, &columns, &sizes);
        text.extend([format!("<path{class} d=\"{path}\" marker-end=\"url(#arrow)\"/>\n")]);
    }
    for (at, node) in drawing.nodes.iter().enumerate() {
        let place = layout.places[at];
        draw_node(&mut text, node, columns.left[place.layer], place.y + MARGIN, sizes[at]);
    }
    text.push_str("</svg>\n");
    text
}

/// Where layers stand, from the left.
struct Columns {
    left: Vec<f64>,
    width: Vec<f64>,
    end: f64,
}

impl Columns {
    fn of(layout: &Layout, sizes: &[(f64, f64)]) -> Self {
        let mut width = vec![0.0_f64; layout.layers];
        for (place, (own, _)) in layout.places.iter().zip(sizes) {
            width[place.layer] = width[place.layer].max(*own);
        }
        let mut end = MARGIN;
        let mut left = Vec::with_capacity(width.len());
        for (at, own) in width.iter().enumerate() {
            left.push(end);
            end += own + if at + 1 < width.len() { LAYER_GAP } else { 0.0 };
        }
        Self { left, width, end }
    }
}

#[expect(clippy::cast_precision_loss, reason = "names are cut, lines are few")]
fn size(node: &Node) -> (f64, f64) {
    let lines = node.lines();
    let longest = lines.iter().map(|line| cut(line).chars().count()).max().unwrap_or(0);
    (longest as f64 * CHARACTER + 2.0 * PADDING, lines.len() as f64 * LINE + 2.0 * PADDING - 4.0)
}

fn cut(label: &str) -> String {
    let count = label.chars().count();
    if count <= LABEL_MAX {
        return label.to_owned();
    }
    let head = LABEL_MAX / 2 - 1;
    let tail = LABEL_MAX - 1 - head;
    let start: String = label.chars().take(head).collect();
    start + "…" + &label.chars().skip(count - tail).collect::<String>()
}

fn draw_node(text: &mut String, node: &Node, left: f64, middle: f64, (width, height): (f64, f64)) {
    let (class, radius) = match node.kind {
        NodeKind::Task => ("task", 6),
        NodeKind::Declaration(_) => ("many", 6),
        NodeKind::Later => ("later", 6),
        NodeKind::File => ("file", 0),
    };
    let top = middle - height / 2.0;
    text.extend([format!(
        "<g><title>{}</title><rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" \
         width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{radius}\"/>\n",
        escaped(&node.label)
    )]);
    let mut baseline = top + PADDING + 10.0;
    for line in node.lines() {
        let x = left + PADDING;
        text.extend([format!(
            "<text x=\"{x:.1}\" y=\"{baseline:.1}\">{}</text>\n",
            escaped(&cut(&line))
        )]);
        baseline += LINE;
    }
    text.push_str("</g>\n");
}

/// A curve from the right of one node to the left of another, through the places between.
fn curve(way: &[usize], layout: &Layout, columns: &Columns, sizes: &[(f64, f64)]) -> String {
    let mut path = String::new();
    let mut from: Option<(f64, f64)> = None;
    for at in way {
        let place = layout.places[*at];
        let (left, y) = (columns.left[place.layer], place.y + MARGIN);
        if let Some((x_before, y_before)) = from {
            let bend = f64::midpoint(x_before, left);
            path.extend([format!(" C{bend:.1},{y_before:.1} {bend:.1},{y:.1} {left:.1},{y:.1}")]);
        }
        // A place of an arrow is as wide as its column.
        let right = left + sizes.get(*at).map_or(columns.width[place.layer], |(width, _)| *width);
        let start = if from.is_none() { 'M' } else { 'L' };
        if Some(at) != way.last() {
            path.extend([format!("{start}{right:.1},{y:.1}")]);
        }
        from = Some((right, y));
    }
    path
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.extend(c.escape_default()),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_ends() {
        let cut = cut(&format!("grid[{}=1,name_=é]", "x".repeat(100)));
        assert_eq!(cut.chars().count(), LABEL_MAX);
        assert!(cut.starts_with("grid[x") && cut.ends_with("x=1,name_=é]"), "{cut}");
        assert_eq!(super::cut(&"y".repeat(LABEL_MAX)), "y".repeat(LABEL_MAX));
    }

    #[test]
    fn names_cannot_leave_their_text() {
        assert_eq!(escaped("<a&\"b\"\u{0}>"), "&lt;a&amp;&quot;b&quot;\\u{0}&gt;");
    }
}
