//! What the paths of tasks that are not known yet may look like.

/// A path with gaps: what stands between them is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    literals: Vec<String>,
}

impl Pattern {
    /// The pattern of a template: each of its expressions may become anything.
    pub(super) fn of(template: &str) -> Self {
        let mut literals = vec![String::new()];
        let mut rest = template.strip_prefix("./").unwrap_or(template);
        loop {
            let mark = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")]
                .into_iter()
                .filter_map(|(open, close)| Some((rest.find(open)?, close)))
                .min();
            let Some((at, close)) = mark else { break };
            let (before, from) = rest.split_at(at);
            if let Some(last) = literals.last_mut() {
                last.push_str(before);
            }
            literals.push(String::new());
            rest = from.split_once(close).map_or("", |(_, after)| after);
        }
        if let Some(last) = literals.last_mut() {
            last.push_str(rest.trim_end_matches('/'));
        }
        Self { literals }
    }

    /// Whether both may become one path. Of two with gaps only the ends are looked at.
    pub(super) fn may_equal(&self, other: &Self) -> bool {
        match (self.literals.as_slice(), other.literals.as_slice()) {
            (_, [path]) => self.matches(path),
            ([path], _) => other.matches(path),
            ([first, .., last], [other_first, .., other_last]) => {
                let starts = first.starts_with(other_first) || other_first.starts_with(first);
                starts && (last.ends_with(other_last) || other_last.ends_with(last))
            }
            _ => false,
        }
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let [first, middle @ .., last] = self.literals.as_slice() else {
            return self.literals.first().is_some_and(|literal| literal == path);
        };
        let Some(mut rest) = path.strip_prefix(first.as_str()) else { return false };
        for literal in middle {
            let Some((_, after)) = rest.split_once(literal.as_str()) else { return false };
            rest = after;
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_may_be_anything() {
        let matches = |template: &str, path: &str| Pattern::of(template).matches(path);
        assert!(matches("out/{{ x }}.bam", "out/a.bam"));
        assert!(matches("out/{{ x }}.bam", "out/a/b.bam"));
        assert!(matches("./{{ a }}-{{ b }}/", "x-y"));
        assert!(matches("{% if a %}x{% endif %}y", "xy"));
        assert!(matches("plain", "plain"));
        assert!(!matches("plain", "plainer"));
        assert!(!matches("out/{{ x }}.bam", "out/a.bai"));
        assert!(!matches("a{{ x }}a", "a"));
    }

    #[test]
    fn two_with_gaps_are_compared_by_their_ends() {
        let may = |a: &str, b: &str| {
            let (a, b) = (Pattern::of(a), Pattern::of(b));
            assert_eq!(a.may_equal(&b), b.may_equal(&a));
            a.may_equal(&b)
        };
        assert!(may("out/{{ x }}.bam", "out/{{ y }}.bam"));
        assert!(may("out/{{ x }}.bam", "out/a{{ y }}"));
        assert!(may("out/{{ x }}.bam", "out/a.bam"));
        assert!(may("a", "a/"));
        assert!(!may("out/{{ x }}.bam", "in/{{ y }}.bam"));
        assert!(!may("out/{{ x }}.bam", "out/{{ y }}.bai"));
        assert!(!may("a", "b"));
    }
}
