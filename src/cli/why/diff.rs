//! The difference between two texts, line by line.

/// Texts with more lines are shown as old and new instead: the table grows with the product.
const LINES_MAX: usize = 400;

/// Unchanged lines that are kept around a change.
const CONTEXT_LINES: usize = 1;

/// A line of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Same(&'a str),
    Old(&'a str),
    New(&'a str),
    /// Lines that are the same and far from any change.
    Gap,
}

/// The shortest way from one text to the other, with little of what is the same.
pub(super) fn diff<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old.len() > LINES_MAX || new.len() > LINES_MAX {
        let removed = old.into_iter().map(Line::Old);
        return removed.chain(new.into_iter().map(Line::New)).collect();
    }
    with_gaps(&walk(&old, &new))
}

/// Walks through the table of longest common subsequences of all pairs of rests.
fn walk<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(Line::Old(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

fn with_gaps<'a>(lines: &[Line<'a>]) -> Vec<Line<'a>> {
    let is_same = |line: &Line<'_>| matches!(line, Line::Same(_));
    let near_change = |at: usize| {
        let from = at.saturating_sub(CONTEXT_LINES);
        lines.iter().skip(from).take(at - from + CONTEXT_LINES + 1).any(|line| !is_same(line))
    };
    let mut kept = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if !is_same(line) || near_change(at) {
            kept.push(*line);
        } else if kept.last() != Some(&Line::Gap) {
            kept.push(Line::Gap);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_and_a_line_around_it_is_shown() {
        let found = diff("a\nb\nc\nd\ne\n", "a\nb\nC\nd\ne\n");
        let expected = [
            Line::Gap,
            Line::Same("b"),
            Line::Old("c"),
            Line::New("C"),
            Line::Same("d"),
            Line::Gap,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn from_nothing_and_to_nothing() {
        assert_eq!(diff("", "a"), [Line::New("a")]);
        assert_eq!(diff("a\nb", ""), [Line::Old("a"), Line::Old("b")]);
        assert_eq!(diff("", ""), []);
    }
}
